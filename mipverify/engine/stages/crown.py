"""Backward bound propagation with fixed slopes: CROWN for the unstable units and the open conditions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State, Update
from mipverify.presolve import crown
from mipverify.proof.backward import minimizer, minimum, propagate_backward
from mipverify.proof.parts import row_chunks
from mipverify.proof.rows import Rows, unit_rows


@dataclass(frozen=True, kw_only=True)
class Crown(Stage):
    """CROWN [Zhang et al. 2018]; the minimizers of the first conditions become hints for attacks."""

    def applies(self, problem: Problem, state: State) -> str | None:
        """Always."""
        return "intermediate bounds tighten all that follows"

    def run(self, work: Work) -> None:
        """Bound the unstable units, then one row for each open condition."""
        work.learn(crown(work.state.proven, work.deadline.over))
        bounds, hints = work.state.proven, list[np.ndarray]()
        for rows in open_rows(work):
            reached = propagate_backward(bounds, rows)
            work.learn(minimum(reached))
            if not hints:
                hints.append(minimizer(bounds, reached.coefficients, None).reshape(len(rows), -1))
        if hints:
            work.tell(Update(hints=hints[0]))


def open_rows(work: Work) -> Iterator[Rows]:
    """The rows of the open conditions, in parts that are passed back together: one, and more until time is up."""
    open_, network = work.state.open(), work.problem.margins
    for part in row_chunks(network, network.output, len(open_)):
        if part.start and work.deadline.over():
            return
        yield unit_rows(network, network.output, open_[part], None, work.problem.box[0])
