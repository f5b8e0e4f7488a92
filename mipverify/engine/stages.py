"""The stages of the cascade: each works only on the conditions that the ones before left open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mipverify.attack.pgd import Attack, pgd
from mipverify.engine.bounding import (
    crown_bounds,
    interval_bounds,
    optimize_conditions,
    tighten_by_cuts,
    tighten_by_lp,
    tighten_harder,
    tighten_progressively,
    tighten_units,
)
from mipverify.engine.lifting import lift_signs, split_lifted
from mipverify.engine.policy import (
    QUICK,
    bounds_cost_more,
    by_milp,
    encodable,
    few_inputs,
    harder_tightening_pays,
    hidden_cuts_are_left,
    hidden_cuts_pay,
    milp_may_finish,
    reducible,
    shallow,
    small,
    was_interrupted,
)
from mipverify.engine.programs import solve_milp
from mipverify.engine.question import Question
from mipverify.engine.splitting import split_boxes, split_phases, split_phases_with_cuts
from mipverify.presolve import Search

MOST_ATTACKED = 256  # conditions at once


def always(question: Question) -> bool:
    """For stages that are worth their time in any case."""
    return True


@dataclass(frozen=True)
class Stage:
    """A named step; `when` says for which questions it is worth its time."""

    name: str
    run: Callable[[Question], None]
    when: Callable[[Question], bool] = always


def evaluate(question: Question) -> None:
    """The middle of the box and two random points."""
    low, high = question.float_box
    random = question.rng.random((3, len(low)), dtype=np.float32)
    random[0] = 0.5
    question.try_points(low + random * (high - low))


def attack(settings: Attack) -> Callable[[Question], None]:
    """Projected gradient descent with the given settings."""

    def run(question: Question) -> None:
        pgd(
            question.margins,
            *question.float_box,
            _lowest(question, question.open()),
            settings,
            question.rng,
            question.try_points,
            hints=question.hints[:4],
            stop=question.clock.over,
            project=question.project,
        )

    return run


def _lowest(question: Question, conditions: np.ndarray) -> np.ndarray:
    """Some conditions, if there are many: those with the least margins in the middle of the box."""
    if len(conditions) <= MOST_ATTACKED:
        return conditions
    low, high = question.float_box
    middle = (0.5 * (low + high)).reshape(1, *question.network.input_shape)
    return conditions[np.argsort(question.margins.forward(middle).reshape(-1)[conditions])[:MOST_ATTACKED]]


LONG_ATTACK = Stage("long attack", attack(Attack(restarts=16, steps=60)))

# The order and the budgets, at a glance. A stage runs while the question is open and time is left.
CASCADE: tuple[Stage, ...] = (
    Stage("evaluation", evaluate),
    Stage("interval", interval_bounds),
    Stage("quick attack", attack(QUICK), when=bounds_cost_more),
    Stage("crown", crown_bounds),
    Stage("attack", attack(QUICK)),
    Stage("optimized crown", optimize_conditions(Search(iterations=20)), when=lambda q: not few_inputs(q)),
    Stage("input splitting", split_boxes, when=lambda q: few_inputs(q) and not by_milp(q)),
    Stage("tightening", tighten_units(Search(iterations=20)), when=lambda q: not few_inputs(q) or by_milp(q)),
    Stage("semidefinite", lift_signs, when=lambda q: not by_milp(q) and shallow(q)),
    LONG_ATTACK,
    Stage("semidefinite branching", split_lifted, when=lambda q: q.lifted is not None),
    Stage("first branching", split_phases, when=lambda q: not by_milp(q) and reducible(q)),
    Stage("progressive tightening", tighten_progressively, when=lambda q: not by_milp(q) and hidden_cuts_pay(q)),
    Stage("branch and bound", split_phases_with_cuts, when=lambda q: not by_milp(q) and reducible(q)),
    Stage("late progressive tightening", tighten_harder, when=lambda q: not by_milp(q) and harder_tightening_pays(q)),
    Stage("lp tightening", tighten_by_lp, when=lambda q: by_milp(q) and not small(q) and encodable(q)),
    Stage("milp", solve_milp, when=lambda q: (by_milp(q) and (small(q) or encodable(q))) or milp_may_finish(q)),
    Stage("late cut tightening", tighten_by_cuts, when=lambda q: not by_milp(q) and hidden_cuts_are_left(q)),
    Stage("late branch and bound", split_phases_with_cuts, when=lambda q: not by_milp(q) and was_interrupted(q)),
)
