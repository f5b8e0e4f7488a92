"""The program limits the memory of its own process, and of no other."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from mipverify_check import main

CHECKER = Path(__file__).parents[2] / "checker"


def test_a_call_leaves_the_limits_of_its_process_alone(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    assert main.main([str(tmp_path / "none.proof"), str(tmp_path / "none.onnx")]) == 2
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_the_program_limits_its_memory() -> None:
    code = (
        "import sys, resource; from mipverify_check import main\n"
        "sys.argv = ['mipverify-check', 'none.proof', 'none.onnx']\n"
        "code = main.program(); print(code, resource.getrlimit(resource.RLIMIT_DATA)[0])"
    )
    environment = os.environ | {"PYTHONPATH": str(CHECKER)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", str(2**31)]
