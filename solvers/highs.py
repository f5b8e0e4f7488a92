"""HiGHS through arrays: the default solver of mixed-integer programs, and warm-started linear programs.

Pinned to 1.14: 1.15.0 and 1.15.1 are reported to crash and to return wrong objectives on ReLU programs
(MIPVerify.jl, issues 218 and 219). tests/solvers holds a stress test that would show it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
from mipverify.solvers.interface import (
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

from mipverify.formulation.lp import LpAnswer
from mipverify.formulation.milp import Milp

# Tighter than HiGHS's defaults: a verdict's margin must stand well above them.
TOLERANCES = {
    "primal_feasibility_tolerance": TIGHT,
    "dual_feasibility_tolerance": TIGHT,
    "mip_feasibility_tolerance": TIGHT,
    "mip_rel_gap": 0.0,
    "mip_abs_gap": TIGHT,
}


class Highs(Solver):
    """HiGHS [Huangfu and Hall 2018], simplex and branch and cut, one thread."""

    name = "highs"
    tolerance = TIGHT
    features = frozenset(Feature)

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
            engine.setOptionValue("time_limit", max(float(limits.time), LEAST_SECONDS))
        watch = _Watch(limits, stop)
        engine.cbMipInterrupt += watch.in_tree
        engine.cbSimplexInterrupt += watch.in_simplex
        engine.run()
        return _solution(engine, milp, with_integers, watch)

    def session(self, left: Callable[[], float] | None = None) -> HighsSession:
        """Linear programs by the dual simplex method."""
        return HighsSession(left)


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


def _solution(engine: Any, milp: Milp, with_integers: bool, watch: _Watch) -> Solution:
    import highspy

    status = highspy.HighsModelStatus
    termination = {
        status.kOptimal: Termination.OPTIMAL,
        status.kInfeasible: Termination.INFEASIBLE,
        status.kUnbounded: Termination.UNBOUNDED,
        status.kUnboundedOrInfeasible: Termination.UNBOUNDED,
        status.kModelEmpty: Termination.OPTIMAL,
        status.kTimeLimit: Termination.TIME_LIMIT,
        status.kIterationLimit: Termination.OTHER_LIMIT,
        status.kSolutionLimit: Termination.OTHER_LIMIT,
        status.kObjectiveBound: Termination.CUTOFF,
        status.kObjectiveTarget: Termination.TARGET,
        status.kInterrupt: watch.reason or Termination.STOPPED,
    }.get(engine.getModelStatus(), Termination.FAILED)
    info, found = engine.getInfo(), engine.getSolution()
    primal = _point(engine, found, milp.columns)
    objective = milp.evaluate(primal)[0] if primal is not None else float("nan")
    dual_status, dual_bound = DualStatus.NONE, float("-inf")
    duals: np.ndarray | None = None
    if with_integers:
        claimed = float(info.mip_dual_bound)
        if np.isfinite(claimed) and termination not in (Termination.FAILED, Termination.INFEASIBLE):
            dual_status, dual_bound = DualStatus.BOUND, claimed
    elif found.dual_valid:
        duals = _numbers(found.row_dual, milp.rows)
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
        TIGHT,
    )


def _point(engine: Any, found: Any, columns: int) -> np.ndarray | None:
    """The point of a solution (n,), if HiGHS calls it feasible."""
    import highspy

    feasible = engine.getInfo().primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    return _numbers(found.col_value, columns) if feasible else None


def _numbers(values: Any, count: int) -> np.ndarray | None:
    """An array (count,) of finite numbers, or None."""
    given = np.asarray(values, np.float64)
    return given if given.shape == (count,) and np.isfinite(given).all() else None


class HighsSession:
    """A linear program under way (`LpSession`), by the dual simplex method."""

    def __init__(self, left: Callable[[], float] | None = None):
        import highspy

        self._engine, self._left, self._columns, self._rows = _engine(0), left, 0, 0
        self._engine.setOptionValue("presolve", "off")  # it would throw the basis away
        self._statuses = [highspy.HighsBasisStatus(k) for k in range(5)]

    def open(self, program: Milp, basis: np.ndarray | None = None) -> None:
        """Take a program in place of any other."""
        import highspy

        _pass_model(self._engine, program)
        self._columns, self._rows = program.columns, program.rows
        if basis is not None and len(basis) == self._columns + self._rows:
            start = highspy.HighsBasis()
            start.col_status = [self._statuses[k] for k in basis[: self._columns]]
            start.row_status = [self._statuses[k] for k in basis[self._columns :]]
            start.valid, start.alien = True, False  # it is whole: HiGHS need not look for one
            self._engine.setBasis(start)

    def set_costs(self, costs: np.ndarray, offset: float = 0.0) -> None:
        """Minimize another objective."""
        index = np.arange(self._columns, dtype=np.int32)
        self._engine.changeColsCost(self._columns, index, np.asarray(costs, np.float64))
        self._engine.changeObjectiveOffset(float(offset))

    def set_bounds(self, lower: np.ndarray, upper: np.ndarray) -> None:
        """Other bounds of the columns."""
        index = np.arange(self._columns, dtype=np.int32)
        self._engine.changeColsBounds(self._columns, index, _infinite(lower), _infinite(upper))

    def add_rows(self, matrix: Any, lower: np.ndarray, upper: np.ndarray) -> None:
        """More rows."""
        more = scipy.sparse.csr_array(matrix)
        arrays = more.indptr[:-1].astype(np.int32), more.indices.astype(np.int32), more.data.astype(np.float64)
        self._engine.addRows(more.shape[0], _infinite(lower), _infinite(upper), more.nnz, *arrays)
        self._rows += more.shape[0]

    def solve(self, seconds: float, cutoff: float = np.inf) -> LpAnswer:
        """Minimize from the last basis."""
        import highspy

        engine, status = self._engine, highspy.HighsModelStatus
        seconds = seconds if self._left is None else min(seconds, self._left())
        engine.setOptionValue("objective_bound", float(cutoff))
        engine.setOptionValue("time_limit", engine.getRunTime() + max(seconds, LEAST_SECONDS))
        engine.run()
        ended, found = engine.getModelStatus(), engine.getSolution()
        multipliers, reduced, empty = None, None, False
        if found.dual_valid:
            multipliers, reduced = _numbers(found.row_dual, self._rows), _numbers(found.col_dual, self._columns)
        if ended == status.kInfeasible:
            _, exists, ray = engine.getDualRay()
            given = _numbers(ray, self._rows) if exists else None
            multipliers, empty = (multipliers, False) if given is None else (given, True)
        return LpAnswer(ended == status.kOptimal, multipliers, reduced, _point(engine, found, self._columns), empty)

    def basis(self) -> np.ndarray | None:
        """The last basis."""
        last = self._engine.getBasis()
        return np.array([int(s) for s in (*last.col_status, *last.row_status)], np.int8) if last.valid else None
