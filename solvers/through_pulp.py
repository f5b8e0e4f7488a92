"""Any solver that PuLP knows, as `pulp:NAME`: Gurobi, CPLEX, Xpress, COPT, SCIP, …, whatever is installed."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from mipverify.solvers.interface import (
    DEFAULT,
    LEAST_SECONDS,
    NO_LIMITS,
    TIGHT,
    Availability,
    DualStatus,
    Feature,
    Limits,
    PrimalStatus,
    Solution,
    Solver,
    Termination,
)

if TYPE_CHECKING:
    from mipverify.formulation.milp import Milp

# Where PuLP passes a solver's own parameters on: what makes it as strict as a verdict wishes, and the name of its seed.
# Solvers that are handed a file are not among them: PuLP writes twelve digits.
STRICT: dict[str, tuple[dict[str, Any], str]] = {
    "GUROBI": (
        {
            "manageEnv": True,  # an environment of its own, which alone can be silent
            "envOptions": {"OutputFlag": 0},
            "FeasibilityTol": TIGHT,
            "IntFeasTol": TIGHT,
            "OptimalityTol": TIGHT,
            "MIPGapAbs": TIGHT,
        },
        "Seed",
    ),
    "HiGHS": (
        {
            "primal_feasibility_tolerance": TIGHT,
            "dual_feasibility_tolerance": TIGHT,
            "mip_feasibility_tolerance": TIGHT,
        },
        "random_seed",
    ),
}
# Some of PuLP's wrappers call a search that ran out of time optimal or infeasible: from this share of it on, nothing is
# taken from them but their point.
TIME_WAS_UP = 0.9
NEAR_INTEGER = 1e-4  # solvers' own tolerances of integrality are 1e-5 and less


class ThroughPulp(Solver):
    """One of PuLP's solvers [Mitchell et al. 2011], by the name that `pulp.listSolvers()` has for it, in any case."""

    def __init__(self, member: str):
        known = {name.lower(): name for name in self.members()}
        self.member = known.get(member.lower(), member)
        self.name = f"pulp:{self.member}"
        strict = self.member in STRICT
        self.features = frozenset({Feature.SEED}) if strict else frozenset()
        self.tolerance = TIGHT if strict else DEFAULT

    @staticmethod
    def members() -> list[str]:
        """The names that PuLP knows; none where it cannot be imported."""
        try:
            import pulp
        except ImportError:
            return []
        return list(dict.fromkeys(pulp.listSolvers()))

    def available(self) -> Availability:
        """Whether PuLP knows the solver and finds it here."""
        try:
            import pulp
        except ImportError as error:
            return Availability(f"PuLP cannot be imported ({error}): pip install pulp")
        known = self.members()
        if self.member not in known:
            return Availability(f"PuLP {pulp.__version__} knows no such solver, but {', '.join(known)}")
        try:
            if pulp.getSolver(self.member, msg=False).available():
                return Availability()
        except Exception as error:  # noqa: BLE001 - wrappers raise whatever the solver's library does
            return Availability(_first_line(error))
        found = ", ".join(pulp.listSolvers(onlyAvailable=True))
        return Availability(f"PuLP does not find it here (its program or Python package); it finds {found}")

    def solve(
        self, milp: Milp, *, limits: Limits = NO_LIMITS, stop: Callable[[], bool] | None = None, seed: int = 0
    ) -> Solution:
        """Minimize with the solver. `stop` is asked once, before the start; a cutoff and a target are not handed on."""
        import pulp

        who, begin = f"{self.name} (PuLP {pulp.__version__})", time.perf_counter()
        if stop is not None and stop():
            return Solution(Termination.STOPPED, PrimalStatus.NONE, DualStatus.NONE, who)
        try:
            solver, closes_gap = self._configured(limits, seed)
            problem, columns = _problem(milp)
            try:
                problem.solve(solver)
            finally:
                if hasattr(solver, "close"):
                    solver.close()
        except Exception as error:  # noqa: BLE001 - wrappers raise whatever the solver's library does
            message = f"{self.name}: {_first_line(error)}"
            return Solution(Termination.FAILED, PrimalStatus.NONE, DualStatus.NONE, who, message=message)
        seconds = time.perf_counter() - begin
        termination = _termination(problem)
        if limits.time is not None and seconds >= TIME_WAS_UP * limits.time and termination is not Termination.FAILED:
            termination = Termination.TIME_LIMIT
        primal = None
        if problem.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
            values = [column.varValue for column in columns]
            primal = np.where([v is None for v in values], np.clip(0.0, milp.lower, milp.upper), values).astype(float)
        if primal is not None and not (np.isfinite(primal).all() and milp.evaluate(primal)[2] <= NEAR_INTEGER):
            primal = None  # stopped early, some give what solves the linear relaxation
        objective = float("nan") if primal is None else milp.evaluate(primal)[0]
        bound = termination is Termination.OPTIMAL and closes_gap and np.isfinite(objective)
        return Solution(
            termination,
            PrimalStatus.NONE if primal is None else PrimalStatus.FEASIBLE,
            DualStatus.BOUND if bound else DualStatus.NONE,
            who,
            primal,
            objective,
            objective if bound else float("-inf"),
            tolerance=self.tolerance,
        )

    def _configured(self, limits: Limits, seed: int) -> tuple[Any, bool]:
        """PuLP's solver with all that can be asked of it, and whether it was told to leave no gap."""
        import pulp

        takes = inspect.signature(type(pulp.getSolver(self.member, msg=False)).__init__).parameters
        wanted: dict[str, Any] = {"msg": False, "threads": 1, "gapRel": 0.0, "gapAbs": TIGHT}
        if limits.time is not None:
            wanted["timeLimit"] = max(float(limits.time), LEAST_SECONDS)
        given = {name: value for name, value in wanted.items() if name in takes}
        own, seed_name = STRICT.get(self.member, ({}, ""))
        if seed_name:
            given |= {**own, seed_name: seed}
        return pulp.getSolver(self.member, **given), "gapRel" in given


def _problem(milp: Milp) -> tuple[Any, list[Any]]:
    """The program in PuLP's objects, and its columns."""
    import pulp

    from mipverify.formulation.program import one_sided
    from mipverify.formulation.pulp_model import add_rows, pulp_variables

    problem = pulp.LpProblem("mipverify", pulp.LpMinimize)
    columns = pulp_variables(milp, [f"c{j}" for j in range(milp.columns)])
    costs = [(columns[j], float(milp.objective[j])) for j in np.flatnonzero(milp.objective)]
    problem.setObjective(pulp.LpAffineExpression(costs))
    add_rows(problem, one_sided(milp, [f"r{i}" for i in range(milp.rows)]), columns)
    return problem, columns


def _termination(problem: Any) -> Termination:
    import pulp

    if problem.status == pulp.LpStatusOptimal:
        whole = problem.sol_status == pulp.LpSolutionOptimal
        return Termination.OPTIMAL if whole else Termination.OTHER_LIMIT
    return {
        pulp.LpStatusInfeasible: Termination.INFEASIBLE,
        pulp.LpStatusUnbounded: Termination.UNBOUNDED,
        pulp.LpStatusNotSolved: Termination.OTHER_LIMIT,
    }.get(problem.status, Termination.FAILED)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
