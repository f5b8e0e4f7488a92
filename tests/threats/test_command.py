"""Threats on the command line: words, codes, and bad input."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.cli.conftest import cli
from tests.cli.files import Result
from tests.threats.bundled import DATA, PATH, margins, sample

__all__ = ["cli"]
OF_IMAGE = ("verify", PATH, "--data", DATA, "--index")


def test_rotation_holds(cli: Callable[..., Result]) -> None:
    result = cli(*OF_IMAGE, 0, "--threat", "rotation:5")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("holds")
    assert "closest rotation" in result.out


def test_a_counterexample_is_told_with_its_parameters(cli: Callable[..., Result]) -> None:
    result = cli(*OF_IMAGE, 7, "--threat", "translation:1,rotation:5", "--json")
    assert result.code == 10
    record = json.loads(result.out)
    assert record["property"]["threat"] == "rotation:5,translation:1"
    assert set(record["statistics"]["worst"]) == {"rotation", "right", "down"}
    import numpy as np

    assert margins(np.array([record["witness"]["input"]]), sample(7).label)[0] <= 0


@pytest.mark.parametrize("threat", ["brightness:0.05,contrast:0.05", "blur:3", "mixture:3", "patch:1", "scaling:0.02"])
def test_every_threat_is_answered(cli: Callable[..., Result], threat: str) -> None:
    assert cli(*OF_IMAGE, 0, "--threat", threat, "--timeout", 60).code in (0, 10)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--threat", "spin:5"), "'spin' is none of patch, mask"),
        (("--threat", "rotation"), "rotation needs a value, such as rotation:5"),
        (("--threat", "rotation:5,blur:3"), "cannot be combined"),
        (("--threat", "rotation:5,rotation:3"), "twice"),
        (("--threat", "rotation:200"), "must lie between 0 and 180"),
        (("--threat", "rotation:x"), "rotation"),
        (("--threat", "scaling:0.7"), "must lie between 0 and 0.5"),
        (("--threat", "patch:0"), "whole number"),
        (("--threat", "blur:4"), "odd size"),
        (("--threat", "brightness:-1"), "positive"),
        (("--threat", "mixture:1000"), "there is no image 1000"),
        (("--threat", "rotation:5", "--eps", "0.1"), "takes no --eps"),
        (("--threat", "mask:background"), "needs --eps"),
        (("--threat", "mask:none.npy", "--eps", "0.1"), "none.npy"),
        (("--threat", "rotation:5", "--proof", "x.proof"), "--proof cannot be combined with --threat rotation:5"),
        (("--threat", "rotation:5", "--memory", "1G"), "--memory cannot be combined with --threat"),
        (("--threat", "blur:3", "--mean", "0.1"), "mean or std"),
        (("--threat", "blur:3", "--arithmetic", "float32"), "real arithmetic only"),
    ],
)
def test_bad_input_is_named(cli: Callable[..., Result], more: tuple[str, ...], words: str) -> None:
    result = cli(*OF_IMAGE, 0, *more)
    assert result.code == 2, result.out
    assert len(result.lines) == 1
    assert words in result.err


def test_a_threat_needs_data(cli: Callable[..., Result], tmp_path: object) -> None:
    result = cli("verify", PATH, "x.vnnlib", "--threat", "rotation:5")
    assert result.code == 2
    assert "--threat cannot be combined with the property file" in result.err
