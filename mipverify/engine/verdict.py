"""The answer to a question: a proof, a replayed counterexample, or how far the work got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mipverify.engine.shown import html_table, number, seconds, vector

if TYPE_CHECKING:
    from mipverify.proof_file import Proof


ABOUT = {
    "real": "the real-valued function",
    "float32": "every float32 evaluation, in any order of summation, with or without fused multiply-add",
}


@dataclass(frozen=True, eq=False, repr=False)
class Witness:
    """An input (n,) float32 inside the stated set and the output (k,) of the original file there, which violates.

    stated: by index, the decimals for which an input stands that is the float32 nearest to what the set allows.
    """

    input: np.ndarray
    output: np.ndarray
    stated: Mapping[int, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Witness(input {vector(self.input)}, output {vector(self.output)})"


@dataclass(frozen=True, eq=False)
class Verdict:
    """holds: every violating condition is excluded by a sound bound. violated: `witness` was replayed. Else unknown.

    stage: who decided. margin_lower_bound: proven lower bound of the smallest margin over the input set, or None.
    trusted: what the verdict takes on a solver's word; empty where every step is certified here.
    statistics: unstable ReLUs by layer, nodes, binaries, seconds by stage. reason: why it is unknown.
    notes: what a reader must know of the question besides: coordinates that no float32 meets exactly. proof: of what
    holds, if one was asked for. arithmetic: what it is about: `real`, the network's real-valued function, or
    `float32`, every evaluation in float32 whatever the order of summation. Witnesses are ONNX Runtime's in any case.
    """

    verdict: Literal["holds", "violated", "unknown"]
    seconds: float
    stage: str
    margin_lower_bound: float | None = None
    witness: Witness | None = None
    trusted: tuple[str, ...] = ()
    statistics: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    network: dict[str, str | None] = field(default_factory=dict)
    property: dict[str, str | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    proof: Proof | None = field(default=None, repr=False)
    arithmetic: Literal["real", "float32"] = "real"

    def about(self) -> str:
        """What `holds` speaks of, in words; empty for other verdicts."""
        return ABOUT[self.arithmetic] if self.verdict == "holds" else ""

    def __repr__(self) -> str:
        parts = [self.verdict, seconds(self.seconds), self.stage]
        if self.margin_lower_bound is not None:
            parts.append(f"margin >= {number(self.margin_lower_bound)}")
        parts += [self.arithmetic] if self.arithmetic != "real" else []
        parts += [self.reason] if self.reason else []
        parts += [f"trusts {', '.join(self.trusted)}"] if self.trusted else []
        return f"Verdict({', '.join(parts)})"

    def _repr_html_(self) -> str:
        rows: dict[str, Any] = {"decided by": self.stage, "seconds": f"{self.seconds:.3g}", "why not": self.reason}
        if self.margin_lower_bound is not None:
            rows["margin at least"] = number(self.margin_lower_bound)
        if self.witness is not None:
            rows |= {"counterexample": vector(self.witness.input), "output there": vector(self.witness.output)}
        unstable = self.statistics.get("unstable_relus") or []
        rows |= {"about": self.about()} | {
            "unstable ReLUs": ", ".join(map(str, unstable)),
            "trusted": ", ".join(self.trusted),
        }
        return html_table(self.verdict, rows | {"notes": "; ".join(self.notes)})

    def to_json(self) -> dict[str, Any]:
        """The object that `mipverify verify --json` prints."""
        from mipverify import __version__

        witness = None
        if self.witness is not None:
            witness = {
                "input": [float(v) for v in self.witness.input.reshape(-1)],
                "output": [float(v) for v in self.witness.output.reshape(-1)],
            }
        margin = self.margin_lower_bound
        return {
            "verdict": self.verdict,
            "seconds": round(self.seconds, 4),
            "stage": self.stage,
            "arithmetic": self.arithmetic,
            "margin_lower_bound": margin if margin is not None and np.isfinite(margin) else None,
            "witness": witness,
            "trusted": list(self.trusted),
            "notes": list(self.notes),
            "statistics": self.statistics,
            "reason": self.reason,
            "network": self.network,
            "property": self.property,
            "version": __version__,
        }
