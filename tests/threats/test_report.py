"""Reports on threats: the same answers as for one sample alone, in runs that go on and are not mixed up."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import cli
from tests.cli.files import Result
from tests.threats.bundled import DATA, PATH

__all__ = ["cli"]
REPORT = ("report", PATH, "--data", DATA, "--workers", 0, "--quiet")
WORDS = {0: "holds", 10: "violated", 3: "unknown"}


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "samples.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("threat", ["rotation:3", "patch:1", "brightness:0.05"])
def test_samples_end_as_they_do_alone(cli: Callable[..., Result], tmp_path: Path, threat: str) -> None:
    out = tmp_path / "run"
    result = cli(*REPORT, "--threat", threat, "--samples", "6:8", "--out", out)
    assert result.code == 0, result.err
    for row in rows(out):
        alone = cli("verify", PATH, "--data", DATA, "--index", row["index"], "--threat", threat, "--json")
        assert row["verdict"] == WORDS[alone.code]
        assert bool(row["worst"]) == bool(json.loads(alone.out)["statistics"].get("worst"))
    summary = json.loads((out / "summary.json").read_text())
    assert summary["threat"] == threat
    assert threat in (out / "report.html").read_text()


def test_a_mask_takes_the_radius(cli: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli(*REPORT, "--threat", "mask:background", "--eps", "0.1", "--samples", "0:2", "--out", out).code == 0
    assert json.loads((out / "summary.json").read_text())["eps"] == "0.1"


def test_a_run_goes_on_and_keeps_to_its_threat(cli: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert cli(*REPORT, "--threat", "patch:1", "--samples", "0:1", "--out", out).code == 0
    first = rows(out)
    assert cli(*REPORT, "--threat", "patch:1", "--samples", "0:2", "--out", out).code == 0
    assert rows(out)[0] == first[0]
    for other in (("--threat", "patch:2"), ("--eps", "0.1")):
        refused = cli(*REPORT, *other, "--samples", "0:2", "--out", out)
        assert refused.code == 2
        assert "threat (patch:1)" in refused.err
    assert len(rows(out)) == 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--threat", "rotation:5", "--eps", "0.1"), "takes no --eps"),
        (("--threat", "mask:background"), "needs --eps too"),
        (("--threat", "spin:5"), "'spin' is none of"),
        (("--threat", "patch:1", "--proofs"), "--proofs cannot be combined with --threat"),
        ((), "--eps E"),
    ],
)
def test_bad_input(cli: Callable[..., Result], tmp_path: Path, more: tuple[str, ...], words: str) -> None:
    result = cli(*REPORT, *more, "--out", tmp_path / "run")
    assert result.code == 2
    assert words in result.err
    assert len(result.err.strip().splitlines()) == 1
