"""Families of images have proofs: the map from parameters to inputs is part of the claim, and the checker makes it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mipverify_check import onnx_file, operators
from mipverify_check.arithmetic import FLOATS
from mipverify_check.parameters import ParameterMap, over_parameters

import mipverify
from mipverify.engine.family import Family, blur, brightness_and_contrast, mixture
from mipverify.network import Network
from mipverify.proof_file import Proof
from mipverify.specification import robustness
from tests.proof_file.nets import dense_file
from tests.proof_file.test_checked import checked

SIZE = 16
RADII = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((1, SIZE)).round(3)


FAMILIES: dict[str, Callable[[], Family]] = {
    "brightness and contrast": lambda: brightness_and_contrast(picture(0), brightness=0.3, contrast=0.3),
    "mixture": lambda: mixture(picture(0), picture(1)),
    "blur": lambda: blur(picture(0).reshape(1, 4, 4), size=3),
    "noise": lambda: brightness_and_contrast(picture(0), brightness=0.2, contrast=0.1).with_noise(0.05),
}


def asked(folder: Path) -> tuple[Network, int]:
    network = dense_file(folder / "net.onnx", [SIZE, 24, 24, 3], 3, 1.3)
    return network, int(network.forward(picture(0)).argmax())


@pytest.mark.parametrize("name", FAMILIES)
def test_what_holds_of_a_family_is_verified_and_of_a_larger_one_is_not(name: str, tmp_path: Path) -> None:
    network, label = asked(tmp_path)
    family, larger, shown = FAMILIES[name](), None, 0
    for radius in RADII:
        verdict = family.verify(network, label, radius=radius, timeout=20, proof=True)
        if verdict.verdict == "violated":
            larger = family.within(radius).box.enclosure
        assert (verdict.proof is not None) == (verdict.verdict == "holds"), verdict.reason
        if verdict.proof is None:
            continue
        assert checked(tmp_path, verdict.proof) == 0
        shown += 1
        if larger is not None:
            header, arrays = json.loads(json.dumps(verdict.proof.header)), dict(verdict.proof.arrays)
            box, size = header["cases"][0]["box"], len(larger[0])
            arrays[box["table"]], arrays[box["which"]] = np.stack(larger, axis=1), np.arange(size, dtype=np.uint16)
            header["cases"][0].pop("region", None)
            assert checked(tmp_path, Proof(header, arrays)) == 1
    assert shown


def test_a_map_may_not_stand_between_a_question_and_its_network(tmp_path: Path) -> None:
    """It could make the same input of all parameters."""
    network, label = asked(tmp_path)
    proof = mipverify.verify(network, robustness(picture(0), label, "0.001", num_classes=3), proof=True).proof
    assert proof is not None
    header, arrays = json.loads(json.dumps(proof.header)), dict(proof.arrays)
    arrays |= {"m0": np.zeros(0, np.uint8), "m1": np.zeros(0), "m2": picture(0).reshape(-1)}
    nothing = {"rows": "m0", "columns": "m0", "values": "m1"}
    header["cases"][0]["map"] = {"size": SIZE, "matrix": nothing, "offset": "m2"}
    assert checked(tmp_path, Proof(header, arrays)) == 1


@pytest.mark.parametrize("noisy", [False, True])
def test_the_checker_makes_the_same_inputs(noisy: bool, tmp_path: Path) -> None:
    network, rng = asked(tmp_path)[0], np.random.default_rng(0)
    matrix, offset = rng.normal(size=(SIZE, 5)), rng.random(SIZE)
    noise = rng.normal(size=(SIZE, 5)) / 3 if noisy else None
    read = operators.lowered(onnx_file.read(str(tmp_path / "net.onnx")), FLOATS)
    mapped = over_parameters(read, ParameterMap(5, matrix, offset, (0.0, 1.0), noise))
    p = rng.normal(size=(5, 50)) / 2
    x = (matrix @ p + offset[:, None]).clip(0, 1)
    if noise is not None:
        x = (x + noise @ p).clip(0, 1)
    values = mapped.values(p)[mapped.output.node]
    assert np.abs(values - network.forward(x.T.reshape(-1, 1, SIZE)).reshape(-1, 3).T).max() < 1e-5
