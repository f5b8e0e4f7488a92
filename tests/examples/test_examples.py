"""The examples of distances, input sets and surrogates run, agree with brute force, and print what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
CASES = [
    (["blur.py"], r"holds\nsmallest margin proven: 0\.\d+"),
    (["brightness_and_contrast.py", "--gap", "0.05", "--grid", "11"], r"optimal, share 0\.\d+ to 0\.\d+"),
    (["tabular.py"], r"optimal: l1 distance 0\.\d+ to 0\.\d+\napproved with: (income|debt|savings)"),
    (["surrogate.py"], r"32 ReLUs, \d+ binaries\nPULP_CBC_CMD: profit 0\.8\d+ .*\nHiGHS: profit 0\.8"),
    (["many_questions.py", "--count", "10"], r"0\.02: 10 of 10 hold\n.*\n.*\n30 questions in"),
    (["curve.py", "--count", "10"], r"0\.1: accuracy .*\n\d+ questions for 40 verdicts"),
    (["tabular.py", "--norm", "l2"], r"optimal: l2 distance 0\.\d+ to 0\.\d+"),
]


def test_rounding_decides() -> None:
    command = [sys.executable, str(EXAMPLES / "rounding.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert re.fullmatch(r"real: holds\nfloat32: violated\n  ONNX Runtime makes 0 of 0\.\d+\n", done.stdout)


@pytest.mark.parametrize(("arguments", "says"), CASES)
def test_example(arguments: list[str], says: str) -> None:
    command = [sys.executable, str(EXAMPLES / arguments[0]), *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(says, done.stdout), done.stdout
    assert "brute force agrees" in done.stdout
    fixed = re.search(r"approved with:(.*)", done.stdout)
    assert fixed is None or not re.search("years|age", fixed[1])
