"""`mipverify check` runs the independent checker on what `verify` has written."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.files import Result, network, vnnlib
from tests.proof_file.nets import dense_file

IMAGES = str(files("mipverify.models.zoo") / "mnist_100.npz")
ZOO = str(files("mipverify.models.zoo") / "mnist_small_linf0.1.onnx")


@pytest.fixture
def asked(tmp_path: Path) -> tuple[str, str]:
    """A network and a property that holds."""
    net, text = tmp_path / "net.onnx", tmp_path / "property.vnnlib"
    onnx.save(network(), net)
    text.write_text(vnnlib(4, 3, "0", "1", "(>= Y_0 1000)"))
    return str(net), str(text)


def test_a_proof_is_written_and_verified(cli: Callable[..., Result], asked: tuple[str, str], tmp_path: Path) -> None:
    proof = tmp_path / "p.proof"
    assert cli("verify", *asked, "--proof", proof).code == 0
    done = cli("check", proof, *asked)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("verified: ")
    assert cli("check", "--exact", proof, *asked).code == 0


def test_a_proof_about_an_image_names_its_question(cli: Callable[..., Result], tmp_path: Path) -> None:
    proof = tmp_path / "p.proof"
    assert cli("verify", ZOO, "--data", IMAGES, "--index", 0, "--eps", "0.1", "--proof", proof).code == 0
    done = cli("check", proof, ZOO)
    assert done.code == 0
    assert "0.1 in linf" in done.out or "1/10 in linf" in done.out


def test_the_codes_are_those_of_the_checker(cli: Callable[..., Result], asked: tuple[str, str], tmp_path: Path) -> None:
    proof = tmp_path / "p.proof"
    assert cli("verify", *asked, "--proof", proof).code == 0
    other = tmp_path / "other.vnnlib"
    other.write_text(vnnlib(4, 3, "0", "1", "(>= Y_0 999)"))
    rejected = cli("check", proof, asked[0], other)
    assert rejected.code == 1
    assert rejected.out.startswith("rejected: ")
    bad = cli("check", proof, tmp_path / "none.onnx", other)
    assert bad.code == 2
    assert bad.err.count("\n") == 1


def test_what_there_is_to_check_is_named_where_it_is_missing(cli: Callable[..., Result], tmp_path: Path) -> None:
    missing = cli("check", tmp_path / "run")
    assert (missing.code, missing.err.count("\n")) == (2, 1)
    assert f"{tmp_path / 'run'}: no such file or folder" in missing.err
    folder = cli("check", tmp_path)
    assert (folder.code, folder.err.count("\n")) == (2, 1)
    assert f"{tmp_path} is not the folder of a report" in folder.err


def test_a_counterexample_is_replayed(cli: Callable[..., Result], asked: tuple[str, str], tmp_path: Path) -> None:
    violated, witness = tmp_path / "violated.vnnlib", tmp_path / "witness.txt"
    violated.write_text(vnnlib(4, 3, "0", "1", "(<= Y_0 1000)"))
    assert cli("verify", asked[0], violated, "--witness", witness).code == 10
    done = cli("check", "--witness", witness, asked[0], violated)
    assert done.code == 0
    assert "in exact arithmetic" in done.out
    assert cli("check", "--witness", witness, *asked).code == 1
    witness.write_text("((X_0 7)\n (X_1 0)\n (X_2 0)\n (X_3 0)\n (Y_0 0))")
    outside = cli("check", "--witness", witness, asked[0], violated)
    assert outside.code == 1
    witness.write_text("nothing")
    assert cli("check", "--witness", witness, asked[0], violated).code == 1


def test_the_proof_of_a_distance_is_that_of_its_radius(cli: Callable[..., Result], tmp_path: Path) -> None:
    network_file, image = tmp_path / "net.onnx", np.full((1, 6), 0.5)
    label = int(dense_file(network_file, [6, 16, 16, 4], 3).forward(image).argmax())
    data, proof = tmp_path / "data.npz", tmp_path / "closest.proof"
    np.savez(data, images=image, labels=[label])
    command = ["distortion", network_file, "--data", data, "--gap", "0.05", "--proof", proof]
    done = cli(*command, "--index", 0, "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert found["proof"] == str(proof)
    checked_here = cli("check", proof, network_file)
    assert checked_here.code == 0
    assert f"no point within {found['distance']['lower']!r} in linf" in checked_here.out
    wrong = cli(*command, "--index", 0, "--label", (label + 1) % 4, "--json")
    assert (json.loads(wrong.out)["proof"], proof.exists()) == (None, False)
    refused = cli(*command, "--samples", "0:1", "--out", tmp_path / "run")
    assert (refused.code, len(refused.lines)) == (2, 1)
    assert "--proof" in refused.lines[0]
