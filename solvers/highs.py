"""HiGHS through arrays: the default solver of mixed-integer programs, and warm-started linear programs.

Pinned to 1.14: 1.15.0 and 1.15.1 are reported to crash and to return wrong objectives on ReLU programs
(MIPVerify.jl, issues 218 and 219). tests/solvers holds a stress test that would show it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from mipverify.solvers.interface import (
    NO_LIMITS,
    Availability,
    DualStatus,
    Feature,
    Limits,
    PrimalStatus,
    Solution,
    Solver,
    Termination,
)

from mipverify.formulation.lp import LpAnswer
from mipverify.formulation.milp import Milp

# Tighter than HiGHS's defaults: a verdict's margin must stand well above them.
TOLERANCES = {
    "primal_feasibility_tolerance": 1e-9,
    "dual_feasibility_tolerance": 1e-9,
    "mip_feasibility_tolerance": 1e-9,
    "mip_rel_gap": 0.0,
    "mip_abs_gap": 1e-9,
}


class Highs(Solver):
    """HiGHS [Huangfu and Hall 2018], simplex and branch and cut, one thread."""

    name = "highs"
    features = frozenset({Feature.LP_DUALS, Feature.NODE_LIMIT, Feature.EARLY_STOP, Feature.WARM_START})

    def available(self) -> Availability:
        """Whether highspy can be imported."""
        try:
            import highspy  # noqa: F401
        except ImportError as error:
            return Availability(f"highspy cannot be imported ({error}): pip install highspy==1.14.0")
        return Availability()

    def solve(
        self, milp: Milp, *, limits: Limits = NO_LIMITS, stop: Callable[[], bool] | None = None, seed: int = 0
    ) -> Solution:
        """Minimize with HiGHS."""
        with_integers = bool(milp.integer.any())
        engine = _engine(seed)
        _pass_model(engine, milp)
        if limits.time is not None:
            engine.setOptionValue("time_limit", max(float(limits.time), 0.01))
        if limits.nodes is not None:
            engine.setOptionValue("mip_max_nodes", int(limits.nodes))
        watch = _Watch(limits, stop)
        engine.cbMipInterrupt += watch.in_tree
        engine.cbSimplexInterrupt += watch.in_simplex
        begin = time.perf_counter()
        engine.run()
        return _solution(engine, milp, with_integers, watch, time.perf_counter() - begin)


class _Watch:
    """Asks HiGHS to stop once the sign is known or the caller wants to; remembers why."""

    def __init__(self, limits: Limits, stop: Callable[[], bool] | None):
        self.limits, self.stop = limits, stop
        self.reason: Termination | None = None

    def in_tree(self, event: Any) -> None:
        cutoff, target = self.limits.objective_cutoff, self.limits.objective_target
        bound, incumbent = event.data_out.mip_dual_bound, event.data_out.mip_primal_bound
        if cutoff is not None and np.isfinite(bound) and bound >= cutoff:
            self.reason = Termination.CUTOFF
        elif target is not None and np.isfinite(incumbent) and incumbent <= target:
            self.reason = Termination.TARGET
        self.in_simplex(event)

    def in_simplex(self, event: Any) -> None:
        if self.reason is None and self.stop is not None and self.stop():
            self.reason = Termination.STOPPED
        if self.reason is not None:
            event.interrupt()


def _engine(seed: int) -> Any:
    import highspy

    engine = highspy.Highs()
    engine.setOptionValue("output_flag", False)
    engine.setOptionValue("threads", 1)
    engine.setOptionValue("random_seed", int(seed))
    for option, value in TOLERANCES.items():
        engine.setOptionValue(option, value)
    return engine


def _pass_model(engine: Any, milp: Milp) -> None:
    """Hand over a program, as arrays: through a `HighsLp` every entry would become an object on the way."""
    import highspy

    engine.passModel(
        milp.columns,
        milp.rows,
        milp.matrix.nnz,
        int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize),
        float(milp.offset),
        np.asarray(milp.objective, np.float64),
        _infinite(milp.lower),
        _infinite(milp.upper),
        _infinite(milp.row_lower),
        _infinite(milp.row_upper),
        milp.matrix.indptr.astype(np.int32),
        milp.matrix.indices.astype(np.int32),
        milp.matrix.data.astype(np.float64),
        milp.integer.astype(np.int32),
    )


def _infinite(values: np.ndarray) -> np.ndarray:
    import highspy

    return np.clip(np.asarray(values, np.float64), -highspy.kHighsInf, highspy.kHighsInf)


def _solution(engine: Any, milp: Milp, with_integers: bool, watch: _Watch, seconds: float) -> Solution:
    import highspy

    status = highspy.HighsModelStatus
    termination = {
        status.kOptimal: Termination.OPTIMAL,
        status.kInfeasible: Termination.INFEASIBLE,
        status.kUnbounded: Termination.UNBOUNDED,
        status.kUnboundedOrInfeasible: Termination.UNBOUNDED,
        status.kModelEmpty: Termination.OPTIMAL,
        status.kTimeLimit: Termination.TIME_LIMIT,
        status.kIterationLimit: Termination.TIME_LIMIT,
        status.kSolutionLimit: Termination.NODE_LIMIT,
        status.kObjectiveBound: Termination.CUTOFF,
        status.kObjectiveTarget: Termination.TARGET,
        status.kInterrupt: watch.reason or Termination.STOPPED,
    }.get(engine.getModelStatus(), Termination.FAILED)
    info, found = engine.getInfo(), engine.getSolution()
    primal: np.ndarray | None = np.asarray(found.col_value, np.float64)
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    if not feasible or primal is None or primal.shape != (milp.columns,) or not np.isfinite(primal).all():
        primal = None
    objective = milp.evaluate(primal)[0] if primal is not None else float("nan")
    dual_status, dual_bound = DualStatus.NONE, float("-inf")
    duals: np.ndarray | None = None
    if with_integers:
        claimed = float(info.mip_dual_bound)
        if np.isfinite(claimed) and termination not in (Termination.FAILED, Termination.INFEASIBLE):
            dual_status, dual_bound = DualStatus.BOUND, claimed
    else:
        given = np.asarray(found.row_dual, np.float64)
        if found.dual_valid and given.shape == (milp.rows,) and np.isfinite(given).all():
            duals = given
            dual_status = DualStatus.MULTIPLIERS
    return Solution(
        termination,
        PrimalStatus.NONE if primal is None else PrimalStatus.FEASIBLE,
        dual_status,
        f"highs {highspy.Highs().version()}",
        primal,
        objective,
        dual_bound,
        duals,
        max(int(info.mip_node_count), 0),
        seconds,
    )


class HighsSession:
    """Linear programs of one shape, each by dual simplex from the last basis of a similar one (`LpSession`)."""

    def __init__(self, left: Callable[[], float] | None = None):
        import highspy

        self._engine, self._left = _engine(0), left
        self._engine.setOptionValue("presolve", "off")  # it would throw the basis away
        self._statuses = [highspy.HighsBasisStatus(k) for k in range(5)]

    def solve(self, milp: Milp, basis: np.ndarray | None, cutoff: float, time_limit: float) -> LpAnswer:
        """Minimize a program without integers; nothing above the cutoff is asked for."""
        import highspy

        engine = self._engine
        time_limit = time_limit if self._left is None else min(time_limit, self._left())
        _pass_model(engine, milp)
        engine.setOptionValue("objective_bound", float(cutoff))
        engine.setOptionValue("time_limit", engine.getRunTime() + max(time_limit, 0.01))
        if basis is not None and len(basis) == milp.columns + milp.rows:
            start = highspy.HighsBasis()
            start.col_status = [self._statuses[k] for k in basis[: milp.columns]]
            start.row_status = [self._statuses[k] for k in basis[milp.columns :]]
            start.valid, start.alien = True, False  # it is whole: HiGHS need not look for one
            engine.setBasis(start)
        engine.run()
        solution = _solution(engine, milp, False, _Watch(Limits(), None), 0.0)
        multipliers = solution.row_duals
        if solution.termination is Termination.INFEASIBLE:
            _, exists, ray = engine.getDualRay()
            given = np.asarray(ray, np.float64) if exists else np.zeros(0)
            if given.shape == (milp.rows,) and np.isfinite(given).all():
                multipliers = given
        last = engine.getBasis()
        found = np.array([int(s) for s in (*last.col_status, *last.row_status)], np.int8) if last.valid else None
        return LpAnswer(multipliers, found, solution.primal)
