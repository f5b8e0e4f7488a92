"""Leaves of the search tree, where every ReLU has its phase: linear programs, with bounds certified by multipliers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from mipverify.engine.question import Question
from mipverify.formulation import Milp, encode
from mipverify.formulation.scaling import equilibrated
from mipverify.presolve import Bounds
from mipverify.proof.reduction import Reduced

if TYPE_CHECKING:
    from mipverify.solvers.branch_and_bound.splits import Node

ROUNDS = 30  # of tangents to a curved ball
SECONDS = 20.0  # for one program
# What an inactive unit may still be: a unit that is proven inactive has no column, and so no row that keeps it below.
ALMOST_INACTIVE = 1e-9


def leaf_solver(question: Question, reduced: Reduced) -> Callable[[Node], float]:
    """A lower bound of the margin in a node without unstable units, infinite where no input has its phases; it holds
    where the node's own bounds do.

    The dual ascent that bounds nodes creeps where an input set has corners; a leaf's program is small and exact. Its
    minimizers are tried as counterexamples.
    """
    assert question.bounds is not None
    original = question.bounds
    network = reduced.bounds.network
    places = {before: (source, units) for before, source, units in reduced.layers}

    def solve(node: Node) -> float:
        lower, upper = list(original.lower), list(original.upper)
        for before, (low, high) in node.bounds.items():
            source, units = places[before]
            own = np.asarray(lower[source]).copy(), np.asarray(upper[source]).copy()
            own[0].reshape(-1)[units] = np.maximum(own[0].reshape(-1)[units], low)
            own[1].reshape(-1)[units] = np.clip(high, ALMOST_INACTIVE, own[1].reshape(-1)[units])
            lower[source], upper[source] = own
        for relu, unit, sign in node.splits:
            source, units = places[network.relu_source(relu)]
            side = lower if sign > 0 else upper
            array = np.asarray(side[source]).copy()
            flat, place = array.reshape(-1), units[unit]
            flat[place] = max(flat[place], 0.0) if sign > 0 else min(flat[place], ALMOST_INACTIVE)
            side[source] = array
        if any(bool((low > high).any()) for low, high in zip(lower, upper, strict=True)):
            return float("inf")
        fixed = Bounds(original.network, tuple(lower), tuple(upper), original.region)
        return _least_margin(question, fixed, node.condition) if fixed.finite()[0] else float("-inf")

    return solve


def _least_margin(question: Question, bounds: Bounds, condition: int) -> float:
    from mipverify.solvers import get_solver
    from mipverify.solvers.certificate import certified_bound, certified_infeasible
    from mipverify.solvers.interface import Limits, Termination

    solver, encoding = get_solver("highs"), encode(question.margins, bounds, stop=question.clock.over)
    encoding = replace(encoding, milp=encoding.milp.relaxed())
    best = float("-inf")
    for _ in range(ROUNDS):
        milp, factors = equilibrated(encoding.minimize(condition))
        limits = Limits(min(SECONDS, question.clock.left()))
        solution = solver.solve(milp, limits=limits, stop=question.clock.over)
        if solution.termination is Termination.INFEASIBLE:
            ray = solver.solve(_relaxation(milp), limits=limits, stop=question.clock.over).row_duals
            return float("inf") if ray is not None and certified_infeasible(milp, ray) else best
        if solution.row_duals is not None:
            best = max(best, certified_bound(milp, solution.row_duals))
        if best > 0 or solution.primal is None or question.clock.over():
            return best
        point = factors * solution.primal
        if question.try_points(point[encoding.inputs][None]):
            return best
        closer = encoding.with_tangents(point)
        if closer is None:
            return best
        encoding = closer
    return best


def _relaxation(milp: Milp) -> Milp:
    """How far the rows must give way for a point to exist: its multipliers prove that they must."""
    count = milp.rows
    from_below, from_above = np.isfinite(milp.row_lower), np.isfinite(milp.row_upper)
    rows = np.concatenate([np.flatnonzero(from_below), np.flatnonzero(from_above)])
    entries = np.concatenate([np.ones(from_below.sum()), -np.ones(from_above.sum())])
    give = sp.csr_array((entries, (rows, np.arange(len(rows)))), shape=(count, len(rows)))
    return replace(
        milp,
        objective=np.append(np.zeros(milp.columns), np.ones(len(rows))),
        offset=0.0,
        matrix=sp.csr_array(sp.hstack([milp.matrix, give])),
        lower=np.append(milp.lower, np.zeros(len(rows))),
        upper=np.append(milp.upper, np.full(len(rows), np.inf)),
        integer=np.append(milp.integer, np.zeros(len(rows), bool)),
    )
