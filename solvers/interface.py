"""What every solver of a Milp takes and gives: limits, three separate statuses, features, availability."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np

    from mipverify.formulation.milp import Milp


class Termination(Enum):
    """Why the solver stopped. By itself it proves nothing: what may be concluded depends on the other two statuses."""

    OPTIMAL = "the solver's tolerances are met: primal point and dual bound agree"
    INFEASIBLE = "the solver claims that no point satisfies all rows, bounds and integrality"
    UNBOUNDED = "the solver claims that the objective has no lower bound (or that there is none or no point)"
    TIME_LIMIT = "the time limit was reached: the dual bound and the incumbent, if any, stand"
    NODE_LIMIT = "the node limit was reached: the dual bound and the incumbent, if any, stand"
    CUTOFF = "the dual bound reached the cutoff asked for: nothing lies below it, the optimum is not known"
    TARGET = "an incumbent at or below the target asked for was found: the optimum is not known"
    STOPPED = "the caller asked to stop"
    FAILED = "the solver failed or gave numbers that are not finite: nothing follows"


class PrimalStatus(Enum):
    """What `Solution.primal` is."""

    NONE = "no point"
    FEASIBLE = "a point that the solver calls feasible; evaluate it before use, and replay it before a verdict"


class DualStatus(Enum):
    """What `Solution.dual_bound` and `Solution.row_duals` are."""

    NONE = "no bound"
    BOUND = "a lower bound on the solver's word, from its branch and bound"
    MULTIPLIERS = "multipliers of a linear program: evidence, from which the kernel concludes"


@dataclass(frozen=True)
class Limits:
    """When to stop: seconds, nodes, a dual bound that is high enough, an incumbent that is low enough; None: never."""

    time: float | None = None
    nodes: int | None = None
    objective_cutoff: float | None = None
    objective_target: float | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, eq=False)
class Solution:
    """What a solver says. Minimization; `dual_bound` and `objective` include the Milp's offset.

    primal: (n,) or None. row_duals: (m,) or None, d objective / d right-hand side: >= 0 where a lower side binds.
    solver: name and version, as a verdict that rests on it will quote it.
    """

    termination: Termination
    primal_status: PrimalStatus
    dual_status: DualStatus
    solver: str
    primal: np.ndarray | None = None
    objective: float = float("nan")
    dual_bound: float = float("-inf")
    row_duals: np.ndarray | None = None
    nodes: int = 0
    seconds: float = 0.0


class Feature(Enum):
    """What a backend can do."""

    LP_DUALS = "multipliers of linear programs"
    NODE_LIMIT = "a node limit"
    EARLY_STOP = "stops once the cutoff or the target is reached, or the caller asks to"
    WARM_START = "solves a changed linear program from the last basis"


@dataclass(frozen=True)
class Availability:
    """Truthy where a backend can be used; `reason` says why not, and what to do."""

    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason


class Solver(ABC):
    """A backend. Instances hold no state between calls."""

    name: ClassVar[str]
    features: ClassVar[frozenset[Feature]]

    @abstractmethod
    def available(self) -> Availability:
        """Whether the backend can be used here."""

    @abstractmethod
    def solve(
        self, milp: Milp, *, limits: Limits = NO_LIMITS, stop: Callable[[], bool] | None = None, seed: int = 0
    ) -> Solution:
        """Minimize. stop: polled; the search ends soon after it returns true. Never raises for a hard problem."""
