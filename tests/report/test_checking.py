"""`mipverify check DIR` judges the proofs of a run by the independent checker, and writes into the run what it says."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mipverify.errors import InputError
from mipverify.report.checking import Checked, check_run
from mipverify.report.proofs import proof_path
from mipverify.report.run import Limits, run_report
from mipverify.specification.preprocessing import Preprocessing
from tests.cli.conftest import cli
from tests.cli.files import Result

__all__ = ["cli"]

ZOO = Path(__file__).parents[2] / "models" / "zoo"
NETWORK, DATA = str(ZOO / "mnist_small_linf0.1.onnx"), str(ZOO / "mnist_100.npz")


def report(out: Path, *, proofs: bool = True, samples: str = "0:12") -> None:
    run_report(NETWORK, DATA, "0.1", out=str(out), limits=Limits(timeout=60, workers=0, proofs=proofs), samples=samples)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with proofs."""
    out = tmp_path_factory.mktemp("kept") / "run"
    report(out)
    return out


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(kept, tmp_path / "run")


def holding(found: Checked) -> list[int]:
    return [sample.index for sample in found.result.samples if sample.verdict == "holds"]


def states(found: Checked) -> dict[int, str]:
    return {sample.index: sample.proof_state for sample in found.result.samples if sample.proof_state}


def rows(run: Path) -> dict[int, dict[str, str]]:
    with (run / "samples.csv").open() as file:
        return {int(row["index"]): row for row in csv.DictReader(file)}


def test_before_a_check_proofs_are_kept(kept: Path) -> None:
    summary = json.loads((kept / "summary.json").read_text())
    assert summary["proofs"]["kept"] == summary["holds"] > 5
    assert summary["proofs"]["verified"] == 0
    assert {row["proof_state"] for row in rows(kept).values() if row["verdict"] == "holds"} == {"kept"}


def test_all_are_verified_and_the_run_says_by_whom(run: Path) -> None:
    page = (run / "report.html").read_text()
    found = check_run(run, workers=2)
    assert set(states(found)) == set(holding(found))
    assert set(states(found).values()) == {"verified"}
    assert (found.judged, found.rejected, found.unjudged) == (len(states(found)), (), ())
    table = rows(run)
    for index in states(found):
        assert table[index]["proof_check"].startswith("mipverify-check ")
        assert table[index]["proof_check"].endswith(", float64")
    assert json.loads((run / "summary.json").read_text())["proofs"]["verified"] == found.judged
    after = (run / "report.html").read_text()
    assert after != page
    assert f"{found.judged} verified by mipverify-check" in " ".join(after.split())


def test_what_is_verified_is_not_checked_again_unless_the_file_is_another(run: Path) -> None:
    first = check_run(run)
    assert check_run(run).judged == 0
    one, other = holding(first)[:2]
    path = proof_path(run, one)
    path.write_bytes(path.read_bytes() + b"\0")
    again = check_run(run)
    assert again.judged == 1
    proof_path(run, other).unlink()
    lost = check_run(run)
    assert states(lost)[other] == "rejected"
    assert [sample.index for sample in lost.rejected if sample.index == other] == [other]
    assert check_run(run, exact=False).result.summary["proofs"]["rejected"] >= 1


def test_another_arithmetic_is_another_check(run: Path) -> None:
    keep = holding(check_run(run))[0]
    for path in (run / "proofs").iterdir():
        if int(path.stem) != keep:
            path.unlink()
    found = check_run(run, exact=True, timeout=0.05)  # too short to finish in rational numbers
    assert [index for index, _ in found.unjudged] == [keep]
    assert "0.05 seconds" in found.unjudged[0][1]
    assert states(found)[keep] == "kept"


def test_a_proof_of_another_sample_is_none(run: Path) -> None:
    """Each of both is right about its own question."""
    first = check_run(run)
    a, b = holding(first)[:2]
    one, other = proof_path(run, a).read_bytes(), proof_path(run, b).read_bytes()
    proof_path(run, a).write_bytes(other)
    proof_path(run, b).write_bytes(one)
    found = check_run(run)
    assert {sample.index for sample in found.rejected} == {a, b}
    assert all("another" in sample.proof_check for sample in found.rejected)


def test_a_damaged_proof_keeps_no_other_from_being_checked(run: Path) -> None:
    first = min(int(path.stem) for path in (run / "proofs").iterdir())
    path = proof_path(run, first)
    path.write_bytes(path.read_bytes()[:-30])
    found = check_run(run, workers=2)
    assert [sample.index for sample in found.rejected] == [first]
    assert set(states(found).values()) == {"verified", "rejected"}
    path.unlink()
    report(run)  # makes up for it
    assert states(check_run(run))[first] == "verified"


def test_proofs_that_are_made_up_for_are_checked(tmp_path: Path) -> None:
    report(tmp_path / "run", proofs=False)
    with pytest.raises(InputError, match="keeps no proofs"):
        check_run(tmp_path / "run")
    report(tmp_path / "run")
    assert {row["proof_state"] for row in rows(tmp_path / "run").values() if row["verdict"] == "holds"} == {"kept"}
    found = check_run(tmp_path / "run")
    assert set(states(found).values()) == {"verified"}
    assert [row["verdict"] for row in rows(tmp_path / "run").values()] == [s.verdict for s in found.result.samples]


def test_the_page_keeps_its_samples_and_class_names(tmp_path: Path) -> None:
    limits = Limits(timeout=60, workers=0, proofs=True)
    names = [f"digit {k}" for k in range(10)]
    for samples in ("0:6", "2:5"):
        run_report(NETWORK, DATA, "0.1", out=str(tmp_path), limits=limits, samples=samples, class_names=names)
    found = check_run(tmp_path)
    assert [sample.index for sample in found.result.samples] == [2, 3, 4]
    assert "digit 7" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "summary.json").read_text())["last"] == 4


def test_questions_with_normalization_are_compared(tmp_path: Path) -> None:
    given = Preprocessing.of(mean="0.01", std="0.99")
    limits = Limits(timeout=60, workers=0, proofs=True)
    run_report(NETWORK, DATA, "0.02", out=str(tmp_path), limits=limits, samples="0:3", preprocessing=given)
    found = check_run(tmp_path)
    assert set(states(found).values()) == {"verified"}
    # The same proofs do not answer for a run that asks about other inputs of the network.
    other = tmp_path / "other"
    run_report(
        NETWORK, DATA, "0.02", out=str(other), limits=limits, samples="0:3",
        preprocessing=replace(given, std=Preprocessing.of(std="0.98").std),
    )  # fmt: skip
    for path in (tmp_path / "proofs").iterdir():
        shutil.copy(path, other / "proofs" / path.name)
    rejected = check_run(other).rejected
    assert len(rejected) == len(holding(found))
    assert all(sample.proof_check == "it is about another normalization" for sample in rejected)


def test_other_files_are_refused(run: Path, tmp_path: Path, cli: Callable[..., Result]) -> None:
    moved = tmp_path / "net.onnx"
    shutil.copy(NETWORK, moved)
    assert check_run(run, network=str(moved)).judged > 0
    for arguments in (
        [run, ZOO / "mnist_certified_linf0.1.onnx"],
        [run, tmp_path / "none.onnx"],
        [run, "--data", ZOO / "none.npz"],
        [run, "--workers", 0],
        [run, "--timeout", -1],
        [tmp_path / "none"],
        [tmp_path / "none", moved, "--workers", 2],
    ):
        done = cli("check", *arguments)
        assert (done.code, done.err.count("\n")) == (2, 1), arguments
        assert "Traceback" not in done.err


def test_the_command_says_what_it_found(run: Path, cli: Callable[..., Result]) -> None:
    done = cli("check", run)
    assert done.code == 0
    assert "proofs verified by mipverify-check" in done.out
    first = min(int(path.stem) for path in (run / "proofs").iterdir())
    proof_path(run, first).write_bytes(b"nothing")
    done = cli("check", run)
    assert done.code == 1
    assert f"sample {first}: rejected: " in done.out
    found = cli("check", run, "--json")
    assert found.code == 1
    assert [entry["index"] for entry in json.loads(found.out)["rejections"]] == [first]


def test_an_interrupted_check_keeps_what_is_done(tmp_path: Path) -> None:
    run = tmp_path / "run"
    report(run, samples="0:60")
    command = [sys.executable, "-m", "mipverify", "check", str(run), "--workers", "1", "--exact"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "Traceback" not in said
    assert "interrupted" in said
    found = check_run(run)
    assert set(states(found).values()) == {"verified"}
