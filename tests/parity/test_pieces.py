"""Verdicts on every piece of network that MIPVerify.jl knows agree with brute force, on either side of the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mipverify
from tests.formats.sources import outputs
from tests.parity.pieces import PIECES, SIZE, box, build, least_margin, property_text

SEEDS = range(3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", PIECES)
def test_verdicts_meet_at_the_least_margin(name: str, seed: int, tmp_path: Path) -> None:
    path = build(name, seed, tmp_path / "net.onnx")
    network, (lower, upper) = mipverify.load(path), box(seed)
    least, _ = least_margin(path, lower, upper, 0, 1)
    slack = 1e-3 * max(1.0, abs(least))
    for margin, expected in ((least - slack, "holds"), (least + slack, "violated")):
        (tmp_path / "property.vnnlib").write_text(property_text(lower, upper, 0, 1, margin))
        verdict = mipverify.verify(network, mipverify.load_vnnlib(tmp_path / "property.vnnlib"), timeout=30)
        assert verdict.verdict == expected, (margin, verdict)
        if verdict.witness is not None:
            x = verdict.witness.input.reshape(-1)
            assert (lower - 1e-7 <= x).all()
            assert (x <= upper + 1e-7).all()
            y = outputs(path, x.reshape(1, 1, SIZE, SIZE))[0].astype(np.float64)
            assert y[0] - y[1] <= margin


@pytest.mark.parametrize("name", PIECES)
def test_milp_agrees_where_bounds_do_not_decide(name: str, tmp_path: Path) -> None:
    path = build(name, 5, tmp_path / "net.onnx")
    network, (lower, upper) = mipverify.load(path), box(5)
    least, _ = least_margin(path, lower, upper, 0, 2)
    slack = 1e-3 * max(1.0, abs(least))
    (tmp_path / "property.vnnlib").write_text(property_text(lower, upper, 0, 2, least - slack))
    for solver in ("highs", "bab"):
        question = mipverify.load_vnnlib(tmp_path / "property.vnnlib")
        verdict = mipverify.verify(network, question, timeout=30, solver=solver)
        # So close to the truth a MILP solver may not be believed; then that is said, and nothing else claimed.
        abstained = solver == "highs" and verdict.verdict == "unknown" and "tolerances" in verdict.reason
        assert verdict.verdict == "holds" or abstained, verdict
