"""A fake verifier that worker processes can import, and data that tells it what to answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mipverify.cluster import SampleJob, Schedule, open_executor
from mipverify.network import Input, Network
from mipverify.specification.dataset import Dataset


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import fake_verifier

    return fake_verifier


def dataset(images: np.ndarray, labels: np.ndarray) -> Dataset:
    return Dataset(images, labels, "in memory", "in memory")


@pytest.fixture
def make_job(fake: ModuleType) -> Callable[[Sequence[int]], SampleJob]:
    def make(fates: Sequence[int]) -> SampleJob:
        images = np.zeros((len(fates), 2), dtype=np.float64)
        images[:, 0] = fates
        network = Network((Input((1, 2)),), 0)
        return SampleJob(
            network, dataset(images, np.arange(len(fates)) % 2), ("0.1",), 5.0, verifier="fake_verifier:verify_batch"
        )

    return make


@pytest.fixture
def run_all() -> Callable[..., dict[int, Any]]:
    def run(job: SampleJob, **where: Any) -> dict[int, Any]:
        executor = open_executor(job, **where)
        try:
            count = len(job.data.labels)
            found: dict[int, Any] = {}
            for results in Schedule(executor, range(count), job).run():
                for result in results:
                    assert result.index not in found, "counted twice"
                    found[result.index] = result
            return found
        finally:
            executor.close()

    return run
