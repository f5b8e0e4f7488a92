"""Backward bound propagation with optimized slopes, for the open conditions and for the unstable units."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mipverify.engine.features import by_milp, crown_work, few_inputs
from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.stages.crown import open_rows, pair_numbers
from mipverify.engine.state import State, Update
from mipverify.presolve import Search, optimize_rows, optimized_crown

FOLLOW_UP = Search(iterations=30)  # ascent steps for the open conditions, once intermediate bounds are tighter


@dataclass(frozen=True, kw_only=True)
class OptimizedCrown(Stage):
    """Slopes optimized for each open condition by itself [Xu et al. 2021].

    search: the ascent. most_work: as for `Crown`. together: for many samples, which it spares work of their own.
    """

    search: Search
    most_work: float = math.inf
    together: bool = False

    def applies(self, problem: Problem, state: State) -> str | None:
        """Unless it costs too much, or the input box is halved: children make better bounds than slopes do."""
        if state.bounds is None or crown_work(state.bounds) > self.most_work * problem.entries:
            return None
        if self.together:
            return "it decides some input sets without work of their own"
        return None if few_inputs(problem, state) else "there are too many inputs to halve the box"

    def run(self, work: Work) -> None:
        """Bound the open conditions, and judge the minimizers."""
        optimize_conditions(work, self.search)


@dataclass(frozen=True, kw_only=True)
class NeuronTightening(Stage):
    """Slopes optimized for each unstable unit by itself, then for the open conditions. search: the ascent for units."""

    search: Search

    def applies(self, problem: Problem, state: State) -> str | None:
        """Unless the input box is halved; a program lives on intermediate bounds in any case."""
        if by_milp(problem):
            return "a program lives on intermediate bounds"
        return None if few_inputs(problem, state) else "there are too many inputs to halve the box"

    def run(self, work: Work) -> None:
        """Bound the unstable units, then the open conditions."""
        work.learn(optimized_crown(work.state.proven, self.search, work.deadline.over))
        optimize_conditions(work.outlasting(), FOLLOW_UP)


def optimize_conditions(work: Work, search: Search) -> None:
    """Slopes optimized for each open condition; the minimizers become hints for attacks, and those of one input set are
    judged at once."""
    bounds = work.state.proven
    surrogate, before, hints = bounds.surrogate(), work.state.open_pairs(), list[np.ndarray]()
    for rows in open_rows(work):
        optimum = optimize_rows(bounds, rows, search, surrogate=surrogate, stop=work.deadline.over)
        if work.problem.together:
            work.learn(optimum.bound)
            hints.append(optimum.minimizer.reshape(len(rows), -1))
            continue
        work.tell(Update(facts=(optimum.bound,), hints=optimum.minimizer.reshape(len(rows), -1)))
        if work.try_points(work.state.hints) is not None:
            return
    if hints:
        found = np.concatenate(hints)
        work.tell(Update(hints=found, hinted=pair_numbers(work, before)[: len(found)]))
