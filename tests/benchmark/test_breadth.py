"""The table by benchmark that `benchmarks/breadth.py` prints: what is decided, what is wrong and what is late."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from mipverify.benchmark.columns import Outcome

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "breadth.py"


@pytest.fixture
def breadth():
    spec = importlib.util.spec_from_file_location("breadth", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outcome(index: int, verdict: str, seconds: float, truth: str = "", benchmark: str = "one") -> Outcome:
    return Outcome(
        index, benchmark, "net.onnx", f"{index}.vnnlib", "n", "p", verdict, seconds, 10.0, truth=truth, replay="correct"
    )


def test_every_benchmark_has_a_row_and_the_last_one_counts_all(breadth):
    found = [
        outcome(0, "holds", 2.0, "holds"),
        outcome(1, "holds", 4.0),
        outcome(2, "timeout", 11.5),
        outcome(3, "timeout", 10.5),
        outcome(4, "holds", 1.0, "violated", "other"),
    ]
    lines = [line.split() for line in breadth.table(found)]
    assert lines[1] == ["one", "4", "2", "0", "1", "3.00", "11.50"]
    assert lines[2] == ["other", "1", "0", "1", "0", "-", "20.00"], "a wrong answer is none"
    assert lines[3] == ["all", "5", "2", "1", "1", "3.00", "13.20"]


def run(place: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(place), "--workers", "1", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_instances_are_asked_and_a_wrong_answer_ends_in_an_error(make_benchmark, tmp_path):
    folder = make_benchmark([0.5, 2, 3])
    rows = [f"onnx/net.onnx,vnnlib/above_{t:g}.vnnlib,20,{v}" for t, v in ((0.5, "sat"), (2, "unsat"), (3, "sat"))]
    (folder / "instances.csv").write_text("\n".join(["onnx,vnnlib,timeout_s,verdict", *rows]) + "\n")
    done = run(folder, "--match", "above_(0.5|2)", "--out", str(tmp_path / "run.csv"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split()[:5] == ["all", "2", "2", "0", "0"]
    with (tmp_path / "run.csv").open(newline="") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == ["violated", "holds"]
    done = run(folder, "--match", "above_3")
    assert done.returncode == 1
    assert "WRONG" in done.stdout
    assert done.stdout.splitlines()[-1].split()[:5] == ["all", "1", "0", "1", "0"]


def test_a_place_without_instances_is_told_in_one_line(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
