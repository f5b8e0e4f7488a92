"""Proofs of networks in which ReLUs read the input and tensors are read twice hold for the checker, however clipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mipverify.solvers.branch_and_bound import phases
from mipverify.solvers.branch_and_bound.refinements import Stuck
from mipverify_check import main as checker

import mipverify
from mipverify.engine import run
from mipverify.engine.schedule import BRANCH_AND_BOUND, CROWN, EVALUATION, FIRST_BRANCHING, INTERVAL
from mipverify.network import Network
from mipverify.proof_file import Proof
from mipverify.specification import load_vnnlib, robustness
from tests.proof_file.nets import WITHOUT_PROGRAMS
from tests.proof_file.read_twice import read_twice_file

BRANCHING = (EVALUATION, INTERVAL, CROWN, FIRST_BRANCHING, BRANCH_AND_BOUND)


def image_of(seed: int) -> np.ndarray:
    """On both sides of zero, which is where ReLUs halve what they read."""
    return np.random.default_rng(seed).uniform(-0.3, 0.7, 6)


def proven(network: Network, seed: int, norm: str, eps: float) -> Proof:
    image = image_of(seed)
    label = int(network.forward(image[None]).argmax())
    asked = robustness(image, label, eps, num_classes=3, norm=norm, domain=None)
    verdict = mipverify.verify(network, asked, proof=True, timeout=120)
    assert verdict.verdict == "holds"
    assert verdict.proof is not None
    assert any("clips" in fact for fact in verdict.proof.header["facts"])
    return verdict.proof


def accepted(folder: Path, proof: Proof, *further: str) -> bool:
    proof.save(folder / "proof")
    return checker.main([str(folder / "proof"), str(folder / "net.onnx"), *further]) == 0


@pytest.mark.parametrize(("second", "seed", "eps"), [("Relu", 0, 0.4), ("Relu", 7, 0.6), ("Abs", 7, 0.6)])
def test_programs_of_nodes_are_proven_within_their_clipped_bounds(
    second: str, seed: int, eps: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Programs for all nodes, and not only for those at which ascents are stuck.
    monkeypatch.setattr(phases, "Stuck", lambda remedies, after: Stuck(remedies, 0))
    monkeypatch.setattr(run, "RECORDED", BRANCHING)
    network = read_twice_file(tmp_path / "net.onnx", seed, second=second)
    assert accepted(tmp_path, proven(network, seed, "linf", eps))


@pytest.mark.parametrize(
    ("second", "seed", "norm", "eps"), [("Relu", 0, "l1", 0.5), ("Relu", 1, "l2", 0.3), ("Abs", 8, "l1", 0.5)]
)
def test_balls_are_bounded_where_a_phase_of_an_input_excludes_the_center(
    second: str, seed: int, norm: str, eps: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "RECORDED", BRANCHING)
    network = read_twice_file(tmp_path / "net.onnx", seed, second=second)
    assert accepted(tmp_path, proven(network, seed, norm, eps))


def property_of(
    network: Network, seed: int, share: float, folder: Path, *, radius: float = 0.3, room: float | None = None
) -> str:
    """Y_0 + 0.7 X_0 is low in no point of a box; share: of its range at samples, by how much below the least of these.

    room: how far above the middle's the sum of the first three inputs may be.
    """
    rng, image = np.random.default_rng(seed), image_of(seed)
    lines = [f"(declare-const X_{i} Real)" for i in range(6)] + [f"(declare-const Y_{i} Real)" for i in range(3)]
    for i, middle in enumerate(image):
        lines += [f"(assert (>= X_{i} {middle - radius:.6f}))", f"(assert (<= X_{i} {middle + radius:.6f}))"]
    x = image + rng.uniform(-radius, radius, (2000, 6))
    if room is not None:
        limit = image[:3].sum() + room
        lines.append(f"(assert (<= (+ X_0 X_1 X_2) {limit:.6f}))")
        x = x[x[:, :3].sum(axis=1) <= limit]
    values = network.forward(x[:, None]).reshape(-1, 3)[:, 0] + 0.7 * x[:, 0]
    lines.append(f"(assert (<= (+ Y_0 (* 0.7 X_0)) {values.min() - share * np.ptp(values):.6f}))")
    path = folder / "property.vnnlib"
    path.write_text("\n".join(lines))
    return str(path)


@pytest.mark.parametrize("seed", [2, 4, 9])
def test_margins_are_those_of_the_rows_that_were_bounded(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 0.7 is no float: the row is bounded as a multiple that has floats, in units of which multipliers and levels are.
    monkeypatch.setattr(run, "RECORDED", BRANCHING)
    network = read_twice_file(tmp_path / "net.onnx", seed)
    asked = property_of(network, seed, 0.15, tmp_path)
    verdict = mipverify.verify(network, load_vnnlib(asked), proof=True, timeout=120)
    assert verdict.verdict == "holds"
    assert verdict.proof is not None
    assert any("clips" in fact for fact in verdict.proof.header["facts"])
    assert accepted(tmp_path, verdict.proof, asked)


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_inequalities_serve_no_units_of_boxes_that_have_no_evidence(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "RECORDED", WITHOUT_PROGRAMS)
    network = read_twice_file(tmp_path / "net.onnx", seed)
    asked = property_of(network, seed, 0.1, tmp_path, room=-0.1)
    verdict = mipverify.verify(network, load_vnnlib(asked), proof=True, timeout=120)
    assert verdict.verdict == "holds"
    assert verdict.proof is not None
    assert "boxes" in {fact["rule"] for fact in verdict.proof.header["facts"]}
    assert accepted(tmp_path, verdict.proof, asked)
