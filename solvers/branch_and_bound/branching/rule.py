"""What a branching rule is, and which there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, TypeVar

R = TypeVar("R", contravariant=True)
D = TypeVar("D", covariant=True)


class BranchingRule(Protocol[R, D]):
    """Chooses where to split subproblems.

    R: what their relaxation shows, as the bounder has it. D: what is split. No choice can make a proof wrong: all rules
    of a bounder lead to complete case distinctions, some to larger ones.
    """

    def choose(self, relaxed: R) -> Sequence[D]:
        """One choice for each subproblem, in their order."""


@dataclass(frozen=True)
class Known:
    """bounder: whose relaxation the rule reads. module, kind: its class, made without arguments."""

    bounder: str
    module: str
    kind: str


CROWN, SEMIDEFINITE, BOX = "crown", "semidefinite", "box"  # bounders: `phases.py`, `semidefinite.py`, `boxes.py`
_HERE = "mipverify.solvers.branch_and_bound.branching"
RULES = {
    "filtered": Known(CROWN, f"{_HERE}.filtered", "FilteredBranching"),
    "largest gap": Known(SEMIDEFINITE, f"{_HERE}.largest_gap", "LargestGap"),
    "influence": Known(BOX, f"{_HERE}.influence", "Influence"),
}


def rule(name: str, bounder: str) -> BranchingRule[Any, Any]:
    """The rule of that name, for a bounder that it reads. Raises ValueError where there is none."""
    known = RULES.get(name)
    if known is None or known.bounder != bounder:
        those = ", ".join(own for own, known in RULES.items() if known.bounder == bounder)
        raise ValueError(f"{name!r} is no branching rule for the bounder {bounder!r}, which has: {those}")
    made: BranchingRule[Any, Any] = getattr(import_module(known.module), known.kind)()
    return made
