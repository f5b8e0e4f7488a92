"""What holds of a threat comes with a proof of the sets that it makes, and the independent checker verifies it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mipverify
from mipverify.engine.threats import parts
from mipverify.engine.threats.parse import parse_threat
from mipverify.engine.threats.sample import Sample
from mipverify.engine.threats.threat import Limits
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.proof_file import Proof
from tests.cli.conftest import cli
from tests.cli.files import Result
from tests.proof_file.nets import dense_file
from tests.proof_file.test_checked import checked

__all__ = ["cli"]
SIDE = 4
THREATS = {
    "mask:background": (0.4, 0.2, 0.1, 0.05, 0.01),
    "mask:foreground": (0.4, 0.2, 0.1, 0.05, 0.01),
    "patch:1": (0.9, 0.6, 0.4, 0.3, 0.2, 0.1),
    "patch:2": (0.4, 0.3, 0.2, 0.1),
    "brightness:{},contrast:{}": (0.4, 0.2, 0.1, 0.05),
}
LIMITS = Limits(timeout=30, proof=True)


def asked(folder: Path) -> tuple[Network, np.ndarray, int]:
    network = dense_file(folder / "net.onnx", [SIDE * SIDE, 24, 24, 3], 3, 1.3)
    image = np.random.default_rng(0).random((1, SIDE * SIDE)).round(3)
    image[0, ::3] = 0
    return network, image, int(network.forward(image).argmax())


def sample(image: np.ndarray, label: int, eps: float | None) -> Sample:
    return Sample(image, label, eps, stored=(SIDE, SIDE))


@pytest.mark.parametrize("text", THREATS)
def test_what_holds_is_verified_and_of_a_larger_threat_is_not(text: str, tmp_path: Path) -> None:
    network, image, label = asked(tmp_path)
    violated: list[np.ndarray] = []  # where some input of the set is wrong
    shown = 0
    for eps in THREATS[text]:
        own = None if "{}" in text else eps
        threat = parse_threat(text.format(eps, eps))
        verdict = threat.verify(network, sample(image, label, own), LIMITS)
        assert (verdict.proof is not None) == (verdict.verdict == "holds"), verdict.reason
        if verdict.verdict == "violated":
            assert verdict.witness is not None
            violated.append(verdict.witness.input.reshape(-1).astype(np.float64))
        if verdict.proof is None:
            continue
        assert checked(tmp_path, verdict.proof) == 0
        assert len(verdict.proof.header["cases"]) == verdict.statistics.get("parts", 1)
        shown += 1
        if violated and "{}" not in text:
            assert checked(tmp_path, widened(verdict.proof, violated[-1])) == 1
    assert shown


def widened(proof: Proof, point: np.ndarray) -> Proof:
    """The same with a first box that holds a point, too."""
    header, arrays = json.loads(json.dumps(proof.header)), dict(proof.arrays)
    box = header["cases"][0]["box"]
    sides = arrays[box["table"]][arrays[box["which"]]]
    wide = np.stack([np.minimum(sides[:, 0], point), np.maximum(sides[:, 1], point)], axis=1)
    header["cases"][0]["box"] = {"table": "wide", "which": "all"}
    arrays["wide"], arrays["all"] = wide, np.arange(len(point), dtype=np.uint8)
    return Proof(header, arrays)


def test_parts_that_are_left_open_together_are_proven_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, image, label = asked(tmp_path)
    monkeypatch.setattr(parts, "TOGETHER", parts.TOGETHER[:1])  # intervals show some of them
    verdict = parse_threat("patch:1").verify(network, sample(image, label, 0.1), LIMITS)
    assert verdict.proof is not None
    shown = [fact["lines"] for fact in verdict.proof.header["facts"] if fact["rule"] == "exclude"]
    assert len(set(shown)) > 1
    assert checked(tmp_path, verdict.proof) == 0


@pytest.mark.parametrize("text", ["mask:foreground", "patch:1", "brightness:0.9", "mixture:1"])
def test_distances_have_proofs_of_their_lower_bounds(text: str, tmp_path: Path) -> None:
    network, image, label = asked(tmp_path)
    images = np.concatenate([image, np.random.default_rng(3).random(image.shape)])
    found = mipverify.minimum_distortion(
        network, images, [label, 0], threat=text, timeout=20, gap=0.1, layout=None, proof=True
    )[0]
    assert found.lower > 0
    assert found.proof is not None
    assert checked(tmp_path, found.proof) == 0


def test_transforms_have_no_proofs(tmp_path: Path, cli: Callable[..., Result]) -> None:
    network, image, label = asked(tmp_path)
    with pytest.raises(InputError, match="no proofs can be written of it"):
        mipverify.minimum_distortion(network, image, label, threat="rotation:5", proof=True)
    data = tmp_path / "data.npz"
    np.savez(data, images=image, labels=[label])
    question = [
        tmp_path / "net.onnx",
        "--data",
        data,
        "--index",
        0,
        "--threat",
        "rotation:5",
        "--proof",
        tmp_path / "p",
    ]
    for command in ("verify", "distortion"):
        refused = cli(command, *question)
        assert (refused.code, len(refused.lines)) == (2, 1)
        assert "--proof cannot be combined with --threat rotation:5" in refused.err


def test_the_command_writes_a_proof(tmp_path: Path, cli: Callable[..., Result]) -> None:
    _, image, label = asked(tmp_path)
    data, proof, network = tmp_path / "data.npz", tmp_path / "p.proof", tmp_path / "net.onnx"
    np.savez(data, images=image, labels=[label])
    question = [network, "--data", data, "--index", 0, "--threat", "mask:foreground", "--proof", proof]
    assert cli("verify", *question, "--eps", "0.01").code == 0
    assert cli("check", proof, network).code == 0
    assert cli("distortion", *question, "--timeout", 20, "--gap", "0.1").code == 0
    assert cli("check", proof, network).code == 0
