"""Search for counterexamples by gradient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipverify.attack.pgd import Attack, attack_work, descend, pgd, walks_at_once
from mipverify.engine.features import crown_work
from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State


@dataclass(frozen=True, kw_only=True)
class GradientAttack(Stage):
    """Projected gradient descent on the open margins, from the middle, random points and what bounds suggest.

    attack: its restarts and steps. most_conditions: attacked at once, those with the least margins in the middle.
    most_hints: of the suggested points, so many are starting points. cost_ratio: only where CROWN of all unstable units
    costs more than so many times the attack; 0 is always. For several input sets, each open pair of one and a condition
    starts from the middle and from what bounds suggest for it.
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
        if work.problem.together:
            attack_pairs(work, self.attack)
            return
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


def attack_pairs(work: Work, attack: Attack) -> None:
    """Descend on all open pairs of an input set and a condition, in parts of bounded work; judge what is reached."""
    network, (entries, conditions) = work.problem.margins, work.state.open_pairs()
    size = max(1, walks_at_once(network) // 2)
    for begin in range(0, len(entries), size):
        if begin and work.deadline.over():
            return
        chosen = np.arange(begin, min(begin + size, len(entries)))
        chosen = chosen[[int(k) not in work.state.witnesses for k in entries[chosen]]]
        if len(chosen):
            _descend_together(work, entries[chosen], conditions[chosen], attack)


def _descend_together(work: Work, entries: np.ndarray, conditions: np.ndarray, attack: Attack) -> None:
    """One part of them: from the middle of each pair's box and, where there are any, from its hint.

    Walks of a pair lie side by side: which rule `descend` moves a walk by depends on its place.
    """
    low, high = work.problem.float_box
    starts = (0.5 * (low + high)[entries]).astype(np.float32)[:, None]
    hinted = work.state.hinted
    if hinted is not None and len(hinted):
        own = _hints(work, hinted, entries, conditions, starts[:, 0])
        starts = np.concatenate([starts, own[:, None]], axis=1)
    walks = starts.shape[1]
    owners, starts = np.repeat(entries, walks), starts.reshape(len(entries) * walks, -1)
    rows = np.zeros((len(starts), work.problem.margins.output_size), np.float32)
    rows[np.arange(len(starts)), np.repeat(conditions, walks)] = 1
    wanted = set(entries.tolist())

    def accept(walks: np.ndarray, points: np.ndarray) -> bool:
        for walk, point in zip(walks, points, strict=True):
            entry = int(owners[walk])
            if entry not in work.state.witnesses:
                work.try_points(point[None], entry)
        return wanted <= work.state.witnesses.keys()

    descend(work.problem.margins, starts, low[owners], high[owners], rows, attack, accept, work.deadline.over)


def _hints(
    work: Work, hinted: np.ndarray, entries: np.ndarray, conditions: np.ndarray, otherwise: np.ndarray
) -> np.ndarray:
    """What bounds suggest for some pairs (P, n) float32, inside their boxes; `otherwise` (P, n) where they do not."""
    low, high = work.problem.float_box
    order, wanted = np.argsort(hinted), entries * len(work.problem.conditions) + conditions
    place = order[np.minimum(np.searchsorted(hinted, wanted, sorter=order), len(order) - 1)]
    hints = np.where((hinted[place] == wanted)[:, None], work.state.hints[place], otherwise)
    return np.clip(hints, low[entries], high[entries]).astype(np.float32)
