"""A distance's lower bound comes with a proof: of each target within the radius at which it was excluded."""

from __future__ import annotations

import copy
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mipverify
from mipverify.engine.distortion import Distortion, Known
from mipverify.engine.family import brightness_and_contrast
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.proof_file import Proof
from tests.proof_file.nets import dense_file
from tests.proof_file.test_checked import checked

SIZE = 6


def asked(folder: Path, seed: int = 0) -> tuple[Network, np.ndarray, int]:
    network = dense_file(folder / "net.onnx", [SIZE, 16, 16, 4], 3)
    image = np.random.default_rng(seed).random((1, SIZE)).round(3)
    return network, image, int(network.forward(image).argmax())


def proven(network: Network, image: np.ndarray, label: int, **how: Any) -> Distortion:
    found = mipverify.minimum_distortion(network, image, label, proof=True, **{"timeout": 60, "gap": 0.02, **how})
    assert isinstance(found, Distortion)
    assert found.lower > 0
    assert found.trusted == ()
    assert found.proof is not None
    return found


@pytest.fixture
def several(tmp_path: Path) -> Distortion:
    """A distance whose targets were excluded within different radii."""
    network, image, label = asked(tmp_path, 7)
    found = proven(network, image, label)
    assert found.proof is not None
    assert len(found.proof.header["cases"]) > 1
    return found


def changed(proof: Proof) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return copy.deepcopy(dict(proof.header)), dict(proof.arrays)


@pytest.mark.parametrize("norm", ["linf", "l1", "l2"])
@pytest.mark.parametrize(
    "more",
    [{}, {"mean": "0.3", "std": "0.7"}, {"domain": None, "max_distance": 1.0}, {"arithmetic": "float32"}],
    ids=["pixels", "normalized", "no domain", "float32"],
)
def test_the_proof_is_of_the_lower_bound(norm: str, more: dict[str, Any], tmp_path: Path) -> None:
    network, image, _ = asked(tmp_path)
    label = int(network.forward((image - 0.3) / 0.7 if "mean" in more else image).argmax())
    found = proven(network, image, label, norm=norm, gap=0.1, **more)
    assert found.proof is not None
    assert found.status == "optimal"
    question = found.proof.header["question"]
    assert question["kind"] == "robustness"
    assert Fraction(question["eps"]) == Fraction(repr(found.lower))
    assert (question["norm"], question["label"], len(question["targets"])) == (norm, label, 3)
    assert checked(tmp_path, found.proof) == 0


def test_each_target_is_proven_within_the_radius_at_which_it_was_excluded(several: Distortion, tmp_path: Path) -> None:
    assert several.proof is not None
    assert sorted(len(case["conditions"]) for case in several.proof.header["cases"]) == [1, 2]
    assert checked(tmp_path, several.proof) == 0


def test_no_target_may_be_left_out(several: Distortion, tmp_path: Path) -> None:
    assert several.proof is not None
    for left in range(len(several.proof.header["cases"])):
        header, arrays = changed(several.proof)
        header["cases"][left]["conditions"] = header["cases"][1 - left]["conditions"][:1]
        assert checked(tmp_path, Proof(header, arrays)) == 1


def test_every_case_holds_the_ball_of_the_question(several: Distortion, tmp_path: Path) -> None:
    assert several.proof is not None
    for which, case in enumerate(several.proof.header["cases"]):
        header, arrays = changed(several.proof)
        box = arrays[case["box"]["table"]][arrays[case["box"]["which"]]]
        middle = box.mean(axis=1, keepdims=True)
        name = f"b{which}"
        arrays[name], arrays[f"{name}w"] = middle + 0.5 * (box - middle), np.arange(SIZE, dtype=np.uint8)
        header["cases"][which]["box"] = {"table": name, "which": f"{name}w"}
        assert checked(tmp_path, Proof(header, arrays)) == 1


def test_no_larger_radius_is_claimed(several: Distortion, tmp_path: Path) -> None:
    assert several.proof is not None
    header, arrays = changed(several.proof)
    header["question"]["eps"] = repr(several.lower * (1 + 1e-6))
    assert checked(tmp_path, Proof(header, arrays)) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"scale": [[1, 2, 0, 1, 1, 0.5]], "max_distance": 0.15},
        {"margin": "0.01"},
        {"constraints": [([1, 1, 0, 0, 0, 0], 2)]},
        {"domain": ([0] * SIZE, [1] * SIZE)},
    ],
    ids=lambda more: next(iter(more)),
)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_other_questions_are_stated_as_sets(norm: str, more: dict[str, Any], tmp_path: Path) -> None:
    network, image, label = asked(tmp_path)
    found = proven(network, image, label, norm=norm, **more)
    assert found.proof is not None
    assert found.proof.header["question"] == {"kind": "sets"}
    assert checked(tmp_path, found.proof) == 0


def test_shares_of_families_have_proofs(tmp_path: Path) -> None:
    network, image, label = asked(tmp_path)
    family = brightness_and_contrast(image, brightness=0.4, contrast=0.4)
    found = family.minimum_distortion(network, label, timeout=30, proof=True)
    assert found.lower > 0
    assert found.proof is not None
    assert found.proof.header["cases"][0]["map"]["size"] == 2
    assert checked(tmp_path, found.proof) == 0


def test_what_was_proven_before_without_a_proof_counts_for_nothing(tmp_path: Path) -> None:
    network, image, label = asked(tmp_path)
    before = mipverify.minimum_distortion(network, image, label, timeout=30)
    known = Known(0.99 * before.upper, before.witness.input)
    found = proven(network, image, label, known=known)
    assert found.proof is not None
    assert found.upper == before.upper
    assert checked(tmp_path, found.proof) == 0
    nothing = mipverify.minimum_distortion(network, image, label, known=known, timeout=1e-9, proof=True)
    assert (nothing.lower, nothing.proof, nothing.status) == (0, None, "bounded")


def test_an_image_that_is_wrong_itself_leaves_nothing_to_prove(tmp_path: Path) -> None:
    network, image, label = asked(tmp_path)
    found = mipverify.minimum_distortion(network, image, (label + 1) % 4, proof=True)
    assert (found.status, found.lower, found.proof) == ("optimal", 0, None)


def test_networks_of_no_file_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    _, image, label = asked(tmp_path)
    with pytest.raises(InputError, match="proof: the network is not that of one ONNX file"):
        mipverify.minimum_distortion(torch.nn.Linear(SIZE, 4), image, label, proof=True)
