"""Backward bound propagation with fixed slopes: Fast-Lin and CROWN for the unstable units and the open conditions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mipverify.engine.features import crown_work
from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State, Update
from mipverify.network.operators import Array
from mipverify.presolve import crown, fast_lin
from mipverify.proof.backward import minimizer, minimum, propagate_backward
from mipverify.proof.parts import row_chunks
from mipverify.proof.rows import Rows, unit_rows


@dataclass(frozen=True, kw_only=True)
class Crown(Stage):
    """CROWN [Zhang et al. 2018]; the minimizers of conditions become hints for attacks.

    most_work: multiplications for one input set, beyond which it is not done. float32_first: the open conditions in
    float32 before float64, which settles most at half the cost.
    """

    most_work: float = math.inf
    float32_first: bool = False

    def applies(self, problem: Problem, state: State) -> str | None:
        """Unless it costs too much."""
        if state.bounds is not None and crown_work(state.bounds) > self.most_work * problem.entries:
            return None
        return "intermediate bounds tighten all that follows"

    def run(self, work: Work) -> None:
        """Bound the unstable units, then one row for each open condition."""
        work.learn(crown(work.state.proven, work.deadline.over))
        if self.float32_first:
            bound_in_float32(work)
        bounds, hints = work.state.proven, list[np.ndarray]()
        several = work.problem.together
        before = work.state.open_pairs()
        for rows in open_rows(work):
            reached = propagate_backward(bounds, rows)
            work.learn(minimum(reached))
            if several or not hints:
                hints.append(minimizer(bounds, reached.coefficients, rows.samples).reshape(len(rows), -1))
        if hints:
            found = np.concatenate(hints)
            work.tell(Update(hints=found, hinted=pair_numbers(work, before)[: len(found)] if several else None))


@dataclass(frozen=True, kw_only=True)
class FastLin(Stage):
    """Fast-Lin [Weng et al. 2018], one pass back for both sides of a unit, in float32. most_work: as for `Crown`."""

    most_work: float = math.inf

    def applies(self, problem: Problem, state: State) -> str | None:
        """Unless CROWN costs too much."""
        if state.bounds is None or crown_work(state.bounds) > self.most_work * problem.entries:
            return None
        return "it decides many input sets at a fraction of the cost of CROWN"

    def run(self, work: Work) -> None:
        """Bound the unstable units, then one row for each open condition."""
        work.learn(fast_lin(work.state.proven, work.deadline.over))
        bound_in_float32(work)


def bound_in_float32(work: Work) -> None:
    """One CROWN row in float32 for each open condition."""
    bounds = work.state.proven
    if bounds.derivation is None:  # who checks a recorded row passes it back in float64
        bounds = bounds.outward(np.float32)
    for rows in open_rows(work, bounds.like):
        work.learn(minimum(propagate_backward(bounds, rows)))


def open_rows(work: Work, like: Array | None = None) -> Iterator[Rows]:
    """The rows of the open conditions, in parts that are passed back together: one, and more until time is up.

    like: for their precision, float64 by default.
    """
    (entries, conditions), network = work.state.open_pairs(), work.problem.margins
    like = work.problem.box[0] if like is None else like
    for part in row_chunks(network, network.output, len(conditions)):
        if part.start and work.deadline.over():
            return
        samples = entries[part] if work.problem.together else None
        yield unit_rows(network, network.output, conditions[part], samples, like)


def pair_numbers(work: Work, pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Pairs of an input set and a condition as numbers entry * k + condition, as `Update.hinted` has them."""
    return np.asarray(pairs[0] * len(work.problem.conditions) + pairs[1])
