"""Gurobi through gurobipy, an optional extra: `pip install mipverify[gurobi]`, which brings a size-limited licence."""

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

TOO_LARGE = 10010  # Gurobi's number for a model beyond what the licence allows
SETTINGS = {
    "OutputFlag": 0,
    "Threads": 1,
    "FeasibilityTol": TIGHT,
    "IntFeasTol": TIGHT,
    "OptimalityTol": TIGHT,
    "MIPGap": 0.0,
    "MIPGapAbs": TIGHT,
    "DualReductions": 0,  # else it may not tell whether a program is infeasible or unbounded
}


class Gurobi(Solver):
    """Gurobi, simplex and branch and cut, one thread."""

    name = "gurobi"
    tolerance = TIGHT
    features = frozenset(Feature) - {Feature.WARM_BASES}

    def available(self) -> Availability:
        """Whether gurobipy can be imported and has a licence."""
        try:
            import gurobipy
        except ImportError as error:
            return Availability(f"gurobipy cannot be imported ({error}): pip install mipverify[gurobi]")
        try:
            gurobipy.Env(params={"OutputFlag": 0}).dispose()
        except gurobipy.GurobiError as error:
            return Availability(f"Gurobi has no licence here: {error}")
        return Availability()

    def solve(
        self, milp: Milp, *, limits: Limits = NO_LIMITS, stop: Callable[[], bool] | None = None, seed: int = 0
    ) -> Solution:
        """Minimize with Gurobi."""
        import gurobipy

        settings: dict[str, Any] = {**SETTINGS, "Seed": seed}
        if limits.time is not None:
            settings["TimeLimit"] = max(float(limits.time), LEAST_SECONDS)
        if limits.objective_cutoff is not None:
            settings["BestBdStop"] = float(limits.objective_cutoff)
        if limits.objective_target is not None:
            settings["BestObjStop"] = float(limits.objective_target)
        try:
            with gurobipy.Env(params=settings) as env, gurobipy.Model(env=env) as model:
                columns, rows = _build(model, milp)
                model.optimize(None if stop is None else lambda model, where: model.terminate() if stop() else None)
                return _solution(model, milp, columns, rows, limits)
        except gurobipy.GurobiError as error:
            message = f"gurobi: {error}"
            if error.errno == TOO_LARGE:
                size = f"{milp.columns} columns and {milp.rows} rows"
                message = f"gurobi: a program of {size} is too large for its size-limited licence"
            who = _who()
            return Solution(Termination.FAILED, PrimalStatus.NONE, DualStatus.NONE, who, message=message)


def _who() -> str:
    import gurobipy

    return "gurobi " + ".".join(str(part) for part in gurobipy.gurobi.version())


def _build(model: Any, milp: Milp) -> tuple[Any, list[tuple[np.ndarray, Any]]]:
    """The columns, and Gurobi's constraints with the rows that they are."""
    columns = model.addMVar(
        milp.columns, lb=milp.lower, ub=milp.upper, obj=milp.objective, vtype=np.where(milp.integer, "I", "C")
    )
    model.ObjCon = float(milp.offset)
    equal = milp.row_lower == milp.row_upper
    parts = []
    for sense, side, wanted in (
        ("=", milp.row_lower, equal),
        (">", milp.row_lower, np.isfinite(milp.row_lower) & ~equal),
        ("<", milp.row_upper, np.isfinite(milp.row_upper) & ~equal),
    ):
        rows = np.flatnonzero(wanted)
        if len(rows):
            parts.append((rows, model.addMConstr(milp.matrix[rows], columns, sense, side[rows])))
    return columns, parts


def _solution(model: Any, milp: Milp, columns: Any, rows: list[tuple[np.ndarray, Any]], limits: Limits) -> Solution:
    from gurobipy import GRB

    termination = {
        GRB.OPTIMAL: Termination.OPTIMAL,
        GRB.INFEASIBLE: Termination.INFEASIBLE,
        GRB.INF_OR_UNBD: Termination.UNBOUNDED,
        GRB.UNBOUNDED: Termination.UNBOUNDED,
        GRB.TIME_LIMIT: Termination.TIME_LIMIT,
        GRB.INTERRUPTED: Termination.STOPPED,
        GRB.ITERATION_LIMIT: Termination.OTHER_LIMIT,
        GRB.NODE_LIMIT: Termination.OTHER_LIMIT,
        GRB.SOLUTION_LIMIT: Termination.OTHER_LIMIT,
        GRB.WORK_LIMIT: Termination.OTHER_LIMIT,
        GRB.MEM_LIMIT: Termination.OTHER_LIMIT,
    }.get(model.Status, Termination.FAILED)
    integers = bool(milp.integer.any())
    bound = float(model.ObjBound) if integers and termination is not Termination.INFEASIBLE else float("-inf")
    if model.Status == GRB.USER_OBJ_LIMIT:
        reached = limits.objective_cutoff is not None and bound >= limits.objective_cutoff
        termination = Termination.CUTOFF if reached else Termination.TARGET
    primal = None
    if model.SolCount and termination not in (Termination.UNBOUNDED, Termination.FAILED):
        primal = np.asarray(columns.X, np.float64)
        if not np.isfinite(primal).all():
            primal = None
    duals = None
    if not integers and model.Status == GRB.OPTIMAL:
        duals = np.zeros(milp.rows)
        for index, constraints in rows:  # of a row with two sides, one binds
            duals[index] += constraints.Pi
    usable = abs(bound) < GRB.INFINITY and termination not in (Termination.UNBOUNDED, Termination.FAILED)
    return Solution(
        termination,
        PrimalStatus.NONE if primal is None else PrimalStatus.FEASIBLE,
        DualStatus.BOUND if usable else DualStatus.NONE,
        _who(),
        primal,
        float("nan") if primal is None else milp.evaluate(primal)[0],
        bound if usable else float("-inf"),
        duals,
        int(model.NodeCount),
        TIGHT,
    )
