"""What every solver of a Milp takes and gives: limits, three separate statuses, features, availability."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from mipverify.formulation.lp import LpSession
    from mipverify.formulation.milp import Milp

# Of rows, bounds and integrality, absolute. A verdict's margin stands far above it (`trust`), so a backend that can be
# told asks for TIGHT; what most solvers take by default is DEFAULT.
TIGHT, DEFAULT = 1e-9, 1e-6
LEAST_SECONDS = 0.01  # the shortest time limit that is handed to a solver: some take 0 for none


class Termination(Enum):
    """Why the solver stopped. By itself it proves nothing: what may be concluded depends on the other two statuses."""

    OPTIMAL = "the solver's tolerances are met: primal point and dual bound agree"
    INFEASIBLE = "the solver claims that no point satisfies all rows, bounds and integrality"
    UNBOUNDED = "the solver claims that the objective has no lower bound (or that there is none or no point)"
    TIME_LIMIT = "the time limit was reached: the dual bound and the incumbent, if any, stand"
    OTHER_LIMIT = "a limit of the solver's own was reached: the dual bound and the incumbent, if any, stand"
    CUTOFF = "the dual bound reached the cutoff asked for: nothing lies below it, the optimum is not known"
    TARGET = "an incumbent at or below the target asked for was found: the optimum is not known"
    STOPPED = "the caller asked to stop"
    FAILED = "the solver failed or gave numbers that are not finite: nothing follows"


class PrimalStatus(Enum):
    """What `Solution.primal` is."""

    NONE = "no point"
    FEASIBLE = "a point that the solver calls feasible; evaluate it before use, and replay it before a verdict"


class DualStatus(Enum):
    """What `Solution.dual_bound` is."""

    NONE = "no bound"
    BOUND = "a lower bound on the solver's word, from its branch and bound"


@dataclass(frozen=True)
class Limits:
    """When to stop: seconds, a dual bound that is high enough, an incumbent that is low enough; None: never.

    A backend that does not declare the feature of a limit goes on without it.
    """

    time: float | None = None
    objective_cutoff: float | None = None
    objective_target: float | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, eq=False)
class Solution:
    """What a solver says. Minimization; `dual_bound` and `objective` include the Milp's offset.

    primal: (n,) or None. row_duals: (m,) or None, of a program without integers, d objective / d right-hand side: >= 0
    where a lower side binds; evidence, from which the kernel concludes. solver: name and version, as a verdict that
    rests on it will quote it. tolerance: what it allowed rows and integrality to be off by. message: why it failed, in
    its own words.
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
    tolerance: float = DEFAULT
    message: str = ""


class Feature(Enum):
    """What a backend can do beyond solving a Milp; callers ask for these (`solver_with`), not for a backend by name."""

    LP_DUALS = "multipliers of linear programs"
    WARM_BASES = "sessions of linear programs that go on from a basis"
    DUAL_BOUND = "a dual bound where a limit ended the search"
    OBJECTIVE_CUTOFF = "stops once the dual bound has reached the cutoff"
    OBJECTIVE_TARGET = "stops once an incumbent has reached the target"
    INTERRUPT = "stops soon after the caller asks it to"
    SEED = "a seed of its random choices"


@dataclass(frozen=True)
class Availability:
    """Truthy where a backend can be used; `reason` says why not, and what to do."""

    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason


class Solver(ABC):
    """A backend. Instances hold no state between calls.

    name: as the user chooses it. features: what it can do beyond the least; the conformance suite holds it to them.
    tolerance: what it is told to allow rows and integrality to be off by.
    """

    name: str
    features: frozenset[Feature]
    tolerance: float = DEFAULT

    @abstractmethod
    def available(self) -> Availability:
        """Whether the backend can be used here."""

    @abstractmethod
    def solve(
        self, milp: Milp, *, limits: Limits = NO_LIMITS, stop: Callable[[], bool] | None = None, seed: int = 0
    ) -> Solution:
        """Minimize. stop: polled; the search ends soon after it returns true. Never raises for a hard problem."""

    def session(self, left: Callable[[], float] | None = None) -> LpSession:
        """A session of linear programs, of backends that declare WARM_BASES.

        left: how many seconds there are for each program, if fewer than asked for.
        """
        raise NotImplementedError(f"{self.name} has no sessions of linear programs")
