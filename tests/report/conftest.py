"""Runs with a fake verifier: data whose first value says what becomes of a sample."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mipverify.engine.sample import SampleResult
from mipverify.report.configuration import RunConfiguration
from mipverify.report.run import AccuracyResult, Limits, run_report


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "cluster"))
    import fake_verifier

    return fake_verifier


@pytest.fixture
def network(tmp_path: Path) -> str:
    """A network with 4 inputs and 10 outputs."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 10], [0.1] * 40)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    return str(path)


@pytest.fixture
def make_data(tmp_path: Path) -> Callable[..., str]:
    def make(fates: Sequence[int], name: str = "data.npz") -> str:
        images = np.zeros((len(fates), 4), dtype=np.float32)
        images[:, 0] = fates
        np.savez(tmp_path / name, images=images, labels=np.arange(len(fates)) % 10)
        return str(tmp_path / name)

    return make


@pytest.fixture
def run(fake: ModuleType, network: str, tmp_path: Path) -> Callable[..., AccuracyResult]:
    def go(data: str, eps: str = "0.1", **others: Any) -> AccuracyResult:
        asked = {name: others.pop(name) for name in ("norm", "samples", "progress") if name in others}
        out = str(others.pop("out", tmp_path / "run"))
        limits = Limits(**({"workers": 0, "verifier": "fake_verifier:verify_batch"} | others))
        return run_report(others.get("network", network), data, eps, out=out, limits=limits, **asked)

    return go


@pytest.fixture
def configuration() -> RunConfiguration:
    return RunConfiguration("net.onnx", "a" * 64, "data.npz", "b" * 64, "c" * 64, "0.1", "linf")


@pytest.fixture
def make_results() -> Callable[..., list[SampleResult]]:
    """Results of every kind, with counterexamples of `size` values."""

    def make(count: int, size: int = 4, seed: int = 0) -> list[SampleResult]:
        chance = random.Random(seed)
        results = []
        for index in range(count):
            verdict = ("holds", "violated", "misclassified", "unknown")[index % 4 if index < 8 else 0]
            label = index % 10
            point = np.full(size, 0.25, dtype=np.float32) if verdict == "violated" else None
            results.append(
                SampleResult(
                    index,
                    label,
                    (label + (verdict == "misclassified")) % 10,
                    verdict,
                    chance.choice(("crown", "attack", "milp")),
                    chance.uniform(0.001, 10.0),
                    chance.uniform(-1.0, 1.0) if verdict in ("holds", "unknown") else None,
                    point,
                    (label + 3) % 10 if point is not None else None,
                    (chance.randrange(50), chance.randrange(20)),
                    reason="time limit" if verdict == "unknown" else "",
                    eps="0.1",
                )
            )
        return results

    return make
