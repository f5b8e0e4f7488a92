"""A folder of proofs, or paths from standard input: each proof gets its own answer."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mipverify_check import main

from tests.checker.examples import EXAMPLES, VIOLATED

CHECKER = Path(__file__).parents[2] / "checker"


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, str, str]:
    """Three files that are to be proofs: one is, one shows nothing, one is no file of that kind; network, property."""
    found = EXAMPLES["passes"](tmp_path)
    held = tmp_path / "proofs"
    held.mkdir()
    content = found.writer.content()
    (held / "a.npz").write_bytes(content)
    (held / "b.npz").write_bytes(content[:-40])
    (held / "c.npz").write_bytes(content)
    (held / "ignored.txt").write_text("nothing")
    return held, str(found.network), str(found.property)


def test_each_proof_of_a_folder_gets_its_answer(
    folder: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    held, *asked = folder
    assert main.main([str(held), *asked]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[:2] for line in lines[:3]] == [
        [str(held / "a.npz"), "verified"],
        [str(held / "b.npz"), "rejected"],
        [str(held / "c.npz"), "verified"],
    ]
    assert lines[3:] == ["2 of 3 proofs verified"]
    (held / "b.npz").unlink()
    assert main.main([str(held), *asked]) == 0


def test_a_folder_without_proofs_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = EXAMPLES["passes"](tmp_path)
    (tmp_path / "empty").mkdir()
    assert main.main([str(tmp_path / "empty"), str(found.network), str(found.property)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "holds no proofs" in said.err


def test_paths_come_one_by_one_and_what_is_not_there_keeps_nobody_waiting(
    folder: tuple[Path, str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, *asked = folder
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{held / 'none.npz'}\n\n{held / 'c.npz'}\n"))
    assert main.main(["--json", "-", *asked]) == 2
    who, missing, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert (who["checker"], who["arithmetic"]) == ("mipverify-check", "float64")
    assert (missing["verdict"], missing["sha256"]) == ("unjudged", None)
    assert last["verdict"] == "verified"
    assert last["asked"]["kind"] == "vnnlib"


def test_the_network_is_read_before_any_answer(folder: tuple[Path, str, str]) -> None:
    held, _, asked = folder
    assert main.main([str(held), str(held / "none.onnx"), asked]) == 2


def test_time_is_limited(folder: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]) -> None:
    held, *asked = folder
    assert main.main([str(held / "a.npz"), *asked, "--timeout", "1e-6"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "1e-06 seconds" in said.err
    assert main.main([str(held / "a.npz"), *asked, "--timeout", "600"]) == 0
    assert main.main([str(held / "a.npz"), *asked, "--timeout", "0"]) == 2
    assert main.main([str(held / "a.npz"), *asked, "--timeout", "nan"]) == 2
    assert main.main([str(held / "a.npz"), *asked, "--timeout", "1e300"]) == 2


def test_a_reader_that_goes_away_ends_it_without_a_traceback(folder: tuple[Path, str, str]) -> None:
    held, *asked = folder
    command = [sys.executable, "-m", "mipverify_check", "-", *asked]
    environment = os.environ | {"PYTHONPATH": str(CHECKER)}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.write(f"{held / 'a.npz'}\n" * 3)
    process.stdin.close()
    said = process.stderr.read()
    assert process.wait(60) == 2
    assert "Traceback" not in said


def test_a_false_claim_among_true_ones_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, given in (("true", ()), ("false", (VIOLATED,))):
        (tmp_path / name).mkdir()
        found = EXAMPLES["passes"](tmp_path / name, *given)
        (tmp_path / f"{name}.npz").write_bytes(found.writer.content())
    assert main.main([str(tmp_path), str(tmp_path / "true" / "net.onnx"), str(found.property)]) in (1, 2)
    assert f"{tmp_path / 'false.npz'}: verified" not in capsys.readouterr().out
