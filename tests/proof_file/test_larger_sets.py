"""What a proof of a small set holds is no proof of a larger one in which there is a counterexample."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mipverify_check import main as checker

import mipverify
from mipverify.network import Network
from mipverify.proof_file import Proof
from mipverify.specification import robustness
from mipverify.specification.specification import Specification
from tests.proof_file.nets import dense_file

RADII = np.geomspace(0.01, 1.0, 24).round(4).tolist()
KINDS = {
    "phases": ([30, 30, 30, 3], "linf"),
    "boxes": ([2, 24, 24, 3], "linf"),
    "semidefinite": ([30, 40, 3], "linf"),
    "balls": ([6, 20, 20, 3], "l2"),
}


def widened(proof: Proof, larger: Specification, eps: float) -> Proof:
    """The proof with the question and the set of a larger radius in the place of its own."""
    header, arrays = json.loads(json.dumps(proof.header)), dict(proof.arrays)
    header["question"]["eps"] = str(eps)
    case = header["cases"][0]
    box = larger.cases[0].inputs.box
    table, which = np.unique(np.stack(box.enclosure, axis=1), axis=0, return_inverse=True)
    arrays[case["box"]["table"]], arrays[case["box"]["which"]] = table, which.reshape(-1).astype(np.uint16)
    if "region" in case:
        case["region"]["radius"] = str(eps)
    return Proof(header, arrays)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_counterexamples_are_never_proven_away(kind: str, seed: int, tmp_path: Path) -> None:
    sizes, norm = KINDS[kind]
    path = tmp_path / "net.onnx"
    network: Network = dense_file(path, sizes, seed, 1.3)
    image = np.random.default_rng(seed).random(network.input_shape)
    label = int(network.forward(image[None]).argmax())
    found: list[tuple[float, Proof]] = []
    for eps in RADII:
        asked = robustness(image, label, eps, num_classes=network.output_size, norm=norm)
        verdict = mipverify.verify(network, asked, timeout=20, proof=True)
        if verdict.verdict == "violated":
            break
        if verdict.proof is not None:
            found.append((eps, verdict.proof))
    if verdict.verdict != "violated" or not found:
        pytest.skip("no radius at which it holds, or none at which it does not")
    for _, proof in found:
        proof.save(tmp_path / "proof")
        assert checker.main([str(tmp_path / "proof"), str(path)]) == 0
        widened(proof, asked, eps).save(tmp_path / "wide")
        assert checker.main([str(tmp_path / "wide"), str(path)]) == 1
