"""Counterexamples and results in the words of the Verification of Neural Networks Competition (VNN-COMP)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mipverify.engine import Verdict, Witness


def counterexample(witness: Witness) -> str:
    """The witness as `((X_0 v) ... (Y_0 v) ...)`; every value reads back as exactly the float32 that it is."""
    pairs = [f"(X_{i} {_number(v)})" for i, v in enumerate(witness.input.reshape(-1))]
    pairs += [f"(Y_{i} {_number(v)})" for i, v in enumerate(witness.output.reshape(-1))]
    return "(" + "\n ".join(pairs) + ")\n"


def result_word(verdict: Verdict, timeout: float) -> str:
    """`sat`, `unsat`, `timeout` or `unknown`."""
    if verdict.verdict == "unknown":
        return "timeout" if verdict.reason == "time" or verdict.seconds >= timeout else "unknown"
    return {"violated": "sat", "holds": "unsat"}[verdict.verdict]


def write(path: str, text: str) -> None:
    """Write a file as a whole: a reader never finds half of it."""
    target = Path(path)
    if not target.is_file() and target.exists():  # a pipe or a device, such as /dev/stdout
        target.write_text(text)
        return
    partial = target.with_name(target.name + ".partial")
    partial.write_text(text)
    partial.replace(target)


def _number(value: float) -> str:
    return repr(float(value))
