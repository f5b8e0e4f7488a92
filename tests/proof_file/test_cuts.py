"""Cuts of the ideal formulation are written down where they were needed, and the checker accepts them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mipverify_check import main as checker

import mipverify
from mipverify.engine.schedule import CROWN, CUT_SAMPLE, INTERVAL, PROGRESSIVE_TIGHTENING, RECORDED
from mipverify.proof_file import Proof
from mipverify.specification import robustness
from tests.proof_file.nets import dense_file
from tests.proof_file.test_checked import checked

BRANCHING = next(stage for stage in RECORDED if stage.name == "branch and bound")
STAGES = (INTERVAL, CROWN, CUT_SAMPLE, PROGRESSIVE_TIGHTENING, BRANCHING)  # all that cuts, and what that needs


def proof_of(folder: Path, sizes: list[int], seed: int, eps: float, outputs: float = 1.0) -> Proof:
    """outputs: what the weights of the last hidden layer are multiplied by, and those behind it are divided by."""
    network = dense_file(folder / "net.onnx", sizes, seed, 1.2, outputs)
    image = np.random.default_rng(seed).random(network.input_shape)
    label = int(network.forward(image[None]).argmax())
    asked = robustness(image, label, eps, num_classes=sizes[-1])
    proof = mipverify.verify(network, asked, timeout=60, proof=True, stages=STAGES).proof
    assert proof is not None
    return proof


def used(proof: Proof) -> Counter[tuple[str, bool]]:
    return Counter((fact["rule"], "cuts" in fact) for fact in proof.header["facts"])


@pytest.mark.parametrize(
    ("sizes", "seed", "eps"),
    [([30, 30, 30, 3], 0, 0.25), ([30, 30, 30, 3], 0, 0.2), ([12, 24, 24, 24, 3], 1, 0.15)],
)
def test_proofs_with_cuts_are_verified(sizes: list[int], seed: int, eps: float, tmp_path: Path) -> None:
    proof = proof_of(tmp_path, sizes, seed, eps)
    found = used(proof)
    assert found["tighten", True]
    assert found["phases", True] or found["exclude", True]
    assert checked(tmp_path, proof) == 0


def test_a_small_proof_with_cuts_is_verified_in_rational_numbers(tmp_path: Path) -> None:
    proof = proof_of(tmp_path, [8, 14, 14, 2], 3, 0.3)
    assert any(cuts for _, cuts in used(proof))
    proof.save(tmp_path / "proof.npz")
    assert checker.main(["--exact", str(tmp_path / "proof.npz"), str(tmp_path / "net.onnx")]) == 0


def test_hidden_units_of_any_scale_are_proven_stable(tmp_path: Path) -> None:
    """Their trees are searched with rows of about the same size, whatever the units' own is."""
    for factor in (2.0**-9, 2.0**9):
        proof = proof_of(tmp_path, [12, 24, 24, 24, 3], 1, 0.12, factor)
        assert any("unit" in fact for fact in proof.header["facts"])
        assert checked(tmp_path, proof) == 0


def test_only_the_best_pass_of_each_side_of_a_unit_is_kept(tmp_path: Path) -> None:
    proof = proof_of(tmp_path, [30, 30, 30, 3], 0, 0.2)
    rows = Counter[tuple[int, str, int]]()
    for fact in proof.header["facts"]:
        if fact["rule"] == "tighten" and "cuts" in fact:
            rows.update((fact["site"], fact["side"], int(unit)) for unit in proof.arrays[fact["units"]])
    assert rows
    assert max(rows.values()) == 1
