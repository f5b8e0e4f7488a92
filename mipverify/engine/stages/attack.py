"""Search for counterexamples by gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipverify.attack.pgd import Attack, attack_work, pgd
from mipverify.engine.features import crown_work
from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Stage):
    """Projected gradient descent on the open margins, from the middle, random points and what bounds suggest.

    attack: its restarts and steps. most_conditions: attacked at once, those with the least margins in the middle.
    most_hints: of the suggested points, so many are starting points. cost_ratio: only where CROWN of all unstable units
    costs more than so many times the attack; 0 is always.
    """

    attack: Attack
    most_conditions: int = 256
    most_hints: int = 4
    cost_ratio: float = 0.0

    def applies(self, problem: Problem, state: State) -> str | None:
        """Always, or before bounds that cost several times as much."""
        if self.cost_ratio == 0:
            return "a counterexample ends all work"
        if state.bounds is None:
            return None
        cost = attack_work(problem.margins, len(state.open()), self.attack)
        if crown_work(state.bounds) <= self.cost_ratio * cost:
            return None
        return f"bounds cost more than {self.cost_ratio:g} times as much"

    def run(self, work: Work) -> None:
        """Descend, and judge what is reached."""
        pgd(
            work.problem.margins,
            *work.problem.float_box,
            self._lowest(work.problem, work.state.open()),
            self.attack,
            work.rng,
            work.try_points,
            hints=work.state.hints[: self.most_hints],
            stop=work.deadline.over,
            project=work.problem.project,
        )

    def _lowest(self, problem: Problem, conditions: np.ndarray) -> np.ndarray:
        """Some conditions, if there are many: those with the least margins in the middle of the box."""
        if len(conditions) <= self.most_conditions:
            return conditions
        low, high = problem.float_box
        middle = (0.5 * (low + high)).reshape(1, *problem.network.input_shape)
        margins = problem.margins.forward(middle).reshape(-1)[conditions]
        return conditions[np.argsort(margins)[: self.most_conditions]]
