"""Input sets cut by linear inequalities: their multipliers are written down, and the checker needs them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mipverify_check import main as checker

import mipverify
from mipverify.network import Network
from mipverify.proof_file import Proof
from mipverify.specification import robustness
from mipverify.specification.sets import Constrained
from mipverify.specification.specification import Specification
from tests.proof_file.nets import dense_file
from tests.proof_file.test_checked import RADII, checked

# With the largest radius at which something holds: beyond it a search only runs into its limit.
KINDS = {
    "passes": ([6, 12, 3], "linf", 1.0),
    "phases": ([30, 30, 30, 3], "linf", 0.1),
    "boxes": ([2, 24, 24, 3], "linf", 0.1),
    "ball": ([6, 20, 20, 3], "l2", 0.6),
}


def asked_of(network: Network, eps: float, norm: str, seed: int, room: float) -> Specification:
    """The inputs of a ball at which no other score gains on the label's as one goes by the slopes in the middle.

    But for `room`, in units of the radius.
    """
    rng = np.random.default_rng(seed)
    image = rng.random(network.input_shape)
    label = int(network.forward(image[None]).argmax())
    asked = robustness(image, label, eps, num_classes=3, norm=norm)
    (case,) = asked.cases
    flat = image.reshape(-1)
    steps = image + 1e-4 * np.eye(flat.size).reshape(-1, *network.input_shape)
    slopes = (network.forward(steps) - network.forward(image[None])).reshape(flat.size, 3) / 1e-4
    gains = (slopes - slopes[:, [label]]).T[[k for k in range(3) if k != label]]
    rows = [(a, float(a @ flat) + room * eps) for a in gains]
    return Specification((replace(case, inputs=Constrained.by(case.inputs, rows)),), "constrained")


@pytest.mark.parametrize("kind", KINDS)
def test_what_holds_in_a_part_of_a_set_is_verified(kind: str, tmp_path: Path) -> None:
    (sizes, norm, largest), used = KINDS[kind], set[str]()
    network = dense_file(tmp_path / "net.onnx", sizes, 2, 1.3)
    proofs = list[Proof]()
    for eps in (eps for eps in RADII if eps <= largest):
        verdict = mipverify.verify(network, asked_of(network, eps, norm, 2, 0.05), timeout=6, proof=True)
        assert verdict.verdict != "holds" or verdict.proof is not None, verdict.reason
        if verdict.proof is not None:
            assert checked(tmp_path, verdict.proof) == 0
            used.update(key for fact in verdict.proof.header["facts"] for key in fact)
            proofs.append(verdict.proof)
    assert "inequalities" in used
    header = json.loads(json.dumps(proofs[0].header))
    for fact in header["facts"]:
        fact.pop("inequalities", None)
    assert checked(tmp_path, Proof(header, proofs[0].arrays)) != 0


def test_inequalities_that_hold_of_more_inputs_are_not_proven_by_the_same_steps(tmp_path: Path) -> None:
    network = dense_file(tmp_path / "net.onnx", [30, 30, 30, 3], 2, 1.3)
    for eps in RADII:
        near, far = (asked_of(network, eps, "linf", 2, room) for room in (0.0, 50.0))
        proof = mipverify.verify(network, near, timeout=6, proof=True).proof
        if proof is None or mipverify.verify(network, far, timeout=6).verdict != "violated":
            continue
        header, arrays = json.loads(json.dumps(proof.header)), dict(proof.arrays)
        inputs = far.cases[0].inputs
        assert isinstance(inputs, Constrained)
        arrays[header["cases"][0]["region"]["offset"]] = inputs.offset
        Proof(header, arrays).save(tmp_path / "proof.npz")
        assert checker.main([str(tmp_path / "proof.npz"), str(tmp_path / "net.onnx")]) == 1
        return
    pytest.fail("no radius at which the inequalities decide")
