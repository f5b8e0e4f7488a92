"""SCIP through pyscipopt, an optional extra: `pip install mipverify[scip]`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
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

from mipverify.formulation.milp import Milp


class Scip(Solver):
    """SCIP [Bolusani et al. 2024], one thread."""

    name = "scip"
    tolerance = TIGHT
    features = frozenset(
        {Feature.DUAL_BOUND, Feature.OBJECTIVE_CUTOFF, Feature.OBJECTIVE_TARGET, Feature.INTERRUPT, Feature.SEED}
    )

    def available(self) -> Availability:
        """Whether pyscipopt can be imported."""
        try:
            import pyscipopt  # noqa: F401
        except ImportError as error:
            return Availability(f"pyscipopt cannot be imported ({error}): pip install mipverify[scip]")
        return Availability()

    def solve(
        self, milp: Milp, *, limits: Limits = NO_LIMITS, stop: Callable[[], bool] | None = None, seed: int = 0
    ) -> Solution:
        """Minimize with SCIP."""
        import pyscipopt

        if stop is not None and stop():
            return Solution(Termination.STOPPED, PrimalStatus.NONE, DualStatus.NONE, "scip")
        model = pyscipopt.Model()
        model.hideOutput()
        model.setParams({"numerics/feastol": TIGHT, "numerics/dualfeastol": TIGHT})
        model.setParam("randomization/randomseedshift", seed)
        if limits.time is not None:
            model.setParam("limits/time", max(limits.time, LEAST_SECONDS))
        if limits.objective_cutoff is not None:
            model.setParam("limits/dual", limits.objective_cutoff)
        if limits.objective_target is not None:
            model.setParam("limits/primal", limits.objective_target)
        columns = _build(model, milp)
        if stop is not None:
            model.includeEventhdlr(_watch(stop), "mipverify", "asks the caller whether to stop")
        model.optimize()
        return _solution(model, milp, columns)


def _watch(stop: Callable[[], bool]) -> Any:
    """Asks SCIP to stop once the caller wants to: looked at with every linear program and node."""
    from pyscipopt import SCIP_EVENTTYPE, SCIP_RESULT, Eventhdlr

    class Watch(Eventhdlr):
        def eventinit(self) -> None:
            for kind in (SCIP_EVENTTYPE.LPSOLVED, SCIP_EVENTTYPE.NODEFOCUSED):
                self.model.catchEvent(kind, self)

        def eventexec(self, event: Any) -> dict[str, Any]:
            if stop():
                self.model.interruptSolve()
            return {"result": SCIP_RESULT.DIDNOTRUN}

    return Watch()


def _build(model: Any, milp: Milp) -> list[Any]:
    from pyscipopt import quicksum

    columns = [
        model.addVar(
            lb=None if np.isneginf(low) else float(low),
            ub=None if np.isposinf(high) else float(high),
            vtype="I" if integer else "C",
            obj=float(cost),
        )
        for low, high, integer, cost in zip(milp.lower, milp.upper, milp.integer, milp.objective, strict=True)
    ]
    model.addObjoffset(milp.offset)
    matrix = milp.matrix
    for i in range(milp.rows):
        low, high = milp.row_lower[i], milp.row_upper[i]
        if not np.isfinite(low) and not np.isfinite(high):
            continue
        span = slice(matrix.indptr[i], matrix.indptr[i + 1])
        entries = zip(matrix.indices[span], matrix.data[span], strict=True)
        row = quicksum(float(v) * columns[j] for j, v in entries)
        if low == high:
            model.addCons(row == float(low))
            continue
        if np.isfinite(low):
            model.addCons(row >= float(low))
        if np.isfinite(high):
            model.addCons(row <= float(high))
    return columns


def _solution(model: Any, milp: Milp, columns: list[Any]) -> Solution:
    termination = {
        "optimal": Termination.OPTIMAL,
        "infeasible": Termination.INFEASIBLE,
        "unbounded": Termination.UNBOUNDED,
        "inforunbd": Termination.UNBOUNDED,
        "timelimit": Termination.TIME_LIMIT,
        "totalnodelimit": Termination.OTHER_LIMIT,
        "nodelimit": Termination.OTHER_LIMIT,
        "duallimit": Termination.CUTOFF,
        "primallimit": Termination.TARGET,
        "userinterrupt": Termination.STOPPED,
        "unknown": Termination.STOPPED,
    }.get(model.getStatus(), Termination.FAILED)
    primal = None
    if model.getNSols() > 0 and termination is not Termination.UNBOUNDED:
        best = model.getBestSol()
        primal = np.array([best[column] for column in columns], dtype=np.float64)
        if not np.isfinite(primal).all():
            primal = None
    bound = float(model.getDualbound())
    usable = np.isfinite(bound) and abs(bound) < model.infinity() and termination is not Termination.INFEASIBLE
    return Solution(
        termination,
        PrimalStatus.NONE if primal is None else PrimalStatus.FEASIBLE,
        DualStatus.BOUND if usable else DualStatus.NONE,
        f"scip {model.version()}",
        primal,
        float("nan") if primal is None else milp.evaluate(primal)[0],
        bound if usable else float("-inf"),
        None,
        int(model.getNTotalNodes()),
        TIGHT,
    )
