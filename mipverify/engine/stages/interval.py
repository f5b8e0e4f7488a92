"""Interval arithmetic, and strict rows that it shows to be met nowhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State
from mipverify.proof.separable import separable_minimum
from mipverify.proof.signs import nonnegative


@dataclass(frozen=True, kw_only=True)
class Interval(Stage):
    """Bounds of all nodes, which every other bounding stage starts from.

    most_exact: strict rows whose minimum is looked for in exact numbers.
    """

    most_exact: int = 64

    def applies(self, problem: Problem, state: State) -> str | None:
        """Always."""
        return "what all bounds start from"

    def run(self, work: Work) -> None:
        """Bound all nodes, and see which margins that settles."""
        problem, bounds = work.problem, work.problem.start()
        work.learn(bounds)
        if not problem.together:
            if bounds.finite()[0]:
                work.learn(bounds.units(problem.margins.output, np.arange(problem.margins.output_size)))
            self._exclude_strict_rows(work)

    def _exclude_strict_rows(self, work: Work) -> None:
        """Strict rows that are met nowhere, because what they ask to be negative never is, though it may be zero."""
        problem, bounds = work.problem, work.state.proven
        conditions, parts = problem.conditions, problem.parts
        open_ = [int(c) for c in work.state.open() if conditions[c].strict.any()]
        if not open_:
            return
        rows = np.array(
            [unit for c in open_ for unit, s in zip(parts[c][1], conditions[c].strict, strict=True) if s], int
        )
        shown = nonnegative(bounds, problem.row_node, rows)
        work.learn(shown)
        some = rows[~(shown.lower >= 0)][: self.most_exact]
        work.learn(separable_minimum(bounds, problem.row_node, some))
