"""Differences of two networks, unit by unit: what the inequalities that tie their ReLUs together live on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.stages.optimized_crown import optimize_conditions
from mipverify.engine.state import State
from mipverify.presolve import Search
from mipverify.presolve.inequalities import differences
from mipverify.presolve.optimized import optimized_units
from mipverify.proof.interval import tighten

STARTS = Search(iterations=0)  # the multipliers that a search begins with: of differences these are nearly the best


@dataclass(frozen=True, kw_only=True)
class Differences(Stage):
    """Differences of unstable units are bounded layer by layer, with inequalities of the layers before; then the open
    conditions."""

    def applies(self, problem: Problem, state: State) -> str | None:
        """Where there are such inequalities."""
        if state.bounds is None or not problem.margins.inequalities:
            return None
        return "inequalities tie the units of two networks together"

    def run(self, work: Work) -> None:
        """Tighten, layer by layer."""
        bounds, stop = work.state.proven, work.deadline.over
        for node in differences(bounds.network):
            units = np.flatnonzero(bounds.unstable(node).reshape(-1))
            found = optimized_units(bounds, node, np.zeros(len(units), int), units, STARTS, stop)
            bounds = tighten(bounds, found)
        work.learn(bounds)
        optimize_conditions(work, STARTS)
