"""A fake verifier that worker processes can import, and data that tells it what to answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mipverify.cluster import Job, Schedule, open_executor
from mipverify.network import Input, Network


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import fake_verifier

    return fake_verifier


@pytest.fixture
def make_job(fake: ModuleType) -> Callable[[Sequence[int]], Job]:
    def make(fates: Sequence[int]) -> Job:
        images = np.zeros((len(fates), 2), dtype=np.float64)
        images[:, 0] = fates
        network = Network((Input((1, 2)),), 0)
        return Job(network, (images, np.arange(len(fates)) % 2), "0.1", 5.0, verifier="fake_verifier:verify_batch")

    return make


@pytest.fixture
def run_all() -> Callable[..., dict[int, Any]]:
    def run(job: Job, **where: Any) -> dict[int, Any]:
        executor = open_executor(job, **where)
        try:
            count = len(job.data[1])
            found: dict[int, Any] = {}
            for results in Schedule(executor, range(count), job.data[1]).run():
                for result in results:
                    assert result.index not in found, "counted twice"
                    found[result.index] = result
            return found
        finally:
            executor.close()

    return run
