"""Calls that documents show, each in an interpreter that has imported nothing but the package."""

from __future__ import annotations

import subprocess
import sys

import pytest

CALLS = (
    "mipverify.presolve.crown",
    "mipverify.presolve.interval",
    "mipverify.solvers.available_solvers()",
    "mipverify.solvers.branch_and_bound.progressive_tighten",
    "mipverify.models.Traced",
    "mipverify.blur",
)


@pytest.mark.parametrize("call", CALLS)
def test_call_needs_no_other_import(call: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import mipverify; {call}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
