"""Counterexamples and results in the words of the Verification of Neural Networks Competition (VNN-COMP)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mipverify.engine import Verdict, Witness


def counterexample(witness: Witness) -> str:
    """The witness as `((X_0 v) ... (Y_0 v) ...)`; every value reads back as exactly the float32 that it is.

    Where a float32 stands for a decimal of the property that no float32 is, the decimal is written.
    """
    pairs = [f"(X_{i} {witness.stated.get(i) or _number(v)})" for i, v in enumerate(witness.input.reshape(-1))]
    pairs += [f"(Y_{i} {_number(v)})" for i, v in enumerate(witness.output.reshape(-1))]
    return "(" + "\n ".join(pairs) + ")\n"


def wrong_class(output: NDArray[Any], label: int) -> str:
    """The class that a witness is given, for people; output: of the original network."""
    from mipverify.engine.sample import other_class

    scores, other = output.reshape(-1), other_class(output, label)
    if len(scores) == 1:  # the file ends in an ArgMax
        return f"class {other} instead of {label}"
    return f"class {other} ({scores[other]:.6g}) instead of {label} ({scores[label]:.6g})"


def result_word(verdict: Verdict, timeout: float) -> str:
    """`sat`, `unsat`, `timeout` or `unknown`."""
    if verdict.verdict == "unknown":
        return "timeout" if verdict.reason == "time" or verdict.seconds >= timeout else "unknown"
    return {"violated": "sat", "holds": "unsat"}[verdict.verdict]


def _number(value: float) -> str:
    return repr(float(value))
