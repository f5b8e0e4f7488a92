"""The network's values at a few points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State


@dataclass(frozen=True, kw_only=True)
class Evaluation(Stage):
    """The middle of the box and random points of it. points: of all of these."""

    points: int = 3

    def applies(self, problem: Problem, state: State) -> str | None:
        """Always."""
        return "a point that violates ends all work"

    def run(self, work: Work) -> None:
        """Judge the points."""
        low, high = work.problem.float_box
        share = work.rng.random((self.points, len(low)), dtype=np.float32)
        share[0] = 0.5
        work.try_points(low + share * (high - low))
