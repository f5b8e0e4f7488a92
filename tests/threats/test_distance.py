"""How much of a threat it takes: bounds that samples respect, words and codes, and bad input."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mipverify
from mipverify.engine.threats.parse import parse_threat
from mipverify.engine.threats.transforming import Transforming
from mipverify.errors import InputError
from tests.cli.conftest import cli
from tests.cli.files import Result
from tests.threats.bundled import DATA, PATH, margins, sample

__all__ = ["cli"]
OF_IMAGE = ("distortion", PATH, "--data", DATA, "--index")


def test_a_rotation_is_bounded_from_both_sides(cli: Callable[..., Result]) -> None:
    result = cli(*OF_IMAGE, 7, "--threat", "rotation:40", "--gap", "0.05", "--json", "--timeout", 60)
    assert result.code == 0
    record = json.loads(result.out)
    assert (record["status"], record["norm"]) == ("optimal", "share of rotation:40")
    assert record["property"]["threat"] == "rotation:40"
    lower, upper = record["distance"]["lower"], record["distance"]["upper"]
    assert 0 < lower < upper <= 1.06 * lower
    assert abs(record["statistics"]["worst"]["rotation"]) / 40 == pytest.approx(upper, rel=1e-6)
    assert margins(np.array([record["witness"]["input"]]), sample(7).label)[0] <= 0
    threat = parse_threat("rotation:40")
    assert isinstance(threat, Transforming)
    inside = threat.transforms(sample(7), Fraction(lower))
    angles = np.linspace(-1, 1, 2001)[:, None] * inside.inward
    assert (margins(inside.values(angles), sample(7).label) > 0).all()


def test_a_threat_that_changes_nothing_says_so(cli: Callable[..., Result]) -> None:
    result = cli(*OF_IMAGE, 0, "--threat", "rotation:3")
    assert result.code == 0
    assert result.out.startswith("none  (share of rotation:3")
    assert "nothing within 1 is classified otherwise" in result.out


def test_a_patch_and_a_mask_have_radii(cli: Callable[..., Result], tmp_path: Path) -> None:
    record = json.loads(cli(*OF_IMAGE, 7, "--threat", "patch:3", "--gap", "0.1", "--json", "--timeout", 60).out)
    assert record["norm"] == "linf within a patch"
    assert set(record["statistics"]["worst"]) == {"row", "column"}
    moved = np.abs(np.array(record["witness"]["input"]) - np.asarray(sample(7).image).reshape(-1))
    assert 0 < (moved > 0).sum() <= 9
    assert moved.max() == pytest.approx(record["distance"]["upper"], rel=1e-6)
    allowed = np.zeros((28, 28), np.uint8)
    allowed[10:18, 10:18] = 1
    np.save(tmp_path / "middle.npy", allowed)
    asked = (*OF_IMAGE, 7, "--threat", f"mask:{tmp_path / 'middle.npy'}", "--norm", "l2", "--gap", "0.3", "--json")
    record = json.loads(cli(*asked, "--timeout", 30).out)
    assert record["norm"] == "l2"
    moved = np.array(record["witness"]["input"]) - np.asarray(sample(7).image).reshape(-1)
    assert not moved.reshape(28, 28)[allowed == 0].any()
    assert np.linalg.norm(moved) <= record["distance"]["upper"] * (1 + 1e-6)


@pytest.mark.parametrize("threat", ["rotation:5", "patch:2", "brightness:0.1", "blur:3", "mask:foreground"])
def test_an_image_that_is_wrong_is_at_distance_zero(threat: str) -> None:
    one = sample(0)
    found = mipverify.minimum_distortion(PATH, one.image, (one.label + 1) % 10, threat=threat, timeout=20)
    assert (found.status, found.lower, found.upper) == ("optimal", 0, 0)
    assert np.array_equal(found.witness.input.reshape(-1), np.asarray(one.image, np.float32).reshape(-1))


def test_a_batch_in_python_is_the_command(cli: Callable[..., Result]) -> None:
    images, labels = np.stack([sample(k).image for k in (7, 6)]), [sample(k).label for k in (7, 6)]
    found = mipverify.minimum_distortion(PATH, images, labels, threat="translation:3", gap=0.1, timeout=60)
    record = json.loads(cli(*OF_IMAGE, 7, "--threat", "translation:3", "--gap", "0.1", "--json", "--timeout", 60).out)
    assert [one.status for one in found] == ["optimal", "optimal"]
    assert (found[0].lower, found[0].upper) == (record["distance"]["lower"], record["distance"]["upper"])
    mixed = mipverify.minimum_distortion(PATH, images, labels, threat="mixture:1", gap=0.1, timeout=60)
    assert mixed[0].norm == "share of mixture:1"
    assert 0 < mixed[0].lower <= mixed[0].upper <= 1


def test_many_samples_go_on_where_they_stopped(cli: Callable[..., Result], tmp_path: Path) -> None:
    asked = ("distortion", PATH, "--data", DATA, "--out", tmp_path / "run", "--threat", "rotation:60", "--gap", "0.1")
    assert cli(*asked, "--samples", "0:1").code == 0
    first = (tmp_path / "run" / "distances.csv").read_text().splitlines()
    assert cli(*asked, "--samples", "0:2").code == 0
    with (tmp_path / "run" / "distances.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["optimal", "optimal"]
    assert (tmp_path / "run" / "distances.csv").read_text().splitlines()[1] == first[1]
    other = cli(*asked[:-3], "rotation:50", "--gap", "0.1", "--samples", "0:2")
    assert other.code == 2
    assert "rotation:5" in other.err or "threat" in other.err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--threat", "spin:5"), "'spin' is none of patch, mask"),
        (("--threat", "rotation:5", "--margin", "0.1"), "--margin cannot be combined with --threat"),
        (("--threat", "rotation:5", "--max-distance", "2"), "shares of it, of which 1 is the largest"),
        (("--threat", "rotation:5", "--norm", "l2"), "takes no norm"),
        (("--threat", "patch:3", "--norm", "l2"), "linf"),
        (("--threat", "patch:3", "--gap", "2"), "gap must lie between 0 and 1"),
        (("--threat", "blur:3", "--mean", "0.1"), "mean or std"),
        (("--threat", "mask:none.npy"), "none.npy"),
        (("--threat", "mixture:1000"), "there is no image 1000"),
    ],
)
def test_bad_input_is_named(cli: Callable[..., Result], more: tuple[str, ...], words: str) -> None:
    result = cli(*OF_IMAGE, 0, *more)
    assert result.code == 2, result.out
    assert len(result.lines) == 1
    assert words in result.err


@pytest.mark.parametrize(
    "more", [{"scale": np.ones(784)}, {"margin": 0.1}, {"constraints": [(np.ones(784), 9)]}, {"max_distance": 3}]
)
def test_what_belongs_to_balls_is_refused_in_python(more: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="threat"):
        mipverify.minimum_distortion(PATH, sample(0).image, sample(0).label, threat="rotation:5", **more)
