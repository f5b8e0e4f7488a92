"""Who accepts a counterexample: the network's original file alone, in ONNX Runtime, at a float32 input of the set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mipverify.engine.verdict import Witness
from mipverify.network import Network
from mipverify.network.replay import Replay
from mipverify.network.rounding_error import error_bounds
from mipverify.specification import Case, Condition

LIKELY = 1e-4  # of a margin's size, relative and absolute: up to here above zero the original may see it otherwise
MOST_REPLAYED = 16  # points at once; those with the least margins


class Judge(Protocol):
    """Decides whether points violate the property."""

    def first_violation(self, points: np.ndarray, conditions: np.ndarray, entry: int = 0) -> Witness | None:
        """The first of some points (R, ...) that violates, once moved to a float32 point of the input set.

        conditions: indices of those that are open still; points at which none of these is near are not replayed.
        entry: of several input sets the one that the points are for.
        """


@dataclass(frozen=True, eq=False)
class Replaying:
    """Replays points in the original file. margins: the margin network of the case. judged: the conditions on what the
    original gives that the case's stand for."""

    network: Network
    margins: Network
    case: Case
    replay: Replay
    judged: tuple[Condition, ...]

    def first_violation(self, points: np.ndarray, conditions: np.ndarray, entry: int = 0) -> Witness | None:
        """As `Judge.first_violation`."""
        x = self.case.inputs.nearest_float32(points.reshape(len(points), -1))
        values = self.margins.values(x.reshape(len(x), *self.network.input_shape))
        guess = values[self.margins.output].reshape(len(x), -1)
        near = LIKELY * (1 + np.abs(guess))
        if self.network.arithmetic == "float32":  # rounding itself may violate, and is looked for
            near = near + error_bounds(self.margins, values, double=False)[self.margins.output].reshape(1, -1)
        likely = np.flatnonzero((guess <= near)[:, conditions].any(axis=1))
        if not len(likely):
            return None
        likely = likely[np.argsort(guess[likely][:, conditions].min(axis=1))][:MOST_REPLAYED]
        for point, output in zip(x[likely], self.replay.run(x[likely]), strict=True):
            if not self.case.inputs.contains(point):
                continue
            if any(meets(self.network, condition, point, output) for condition in self.judged):
                stated = {i: coordinate.decimal for i, coordinate in self.case.box.stated.items()}
                return Witness(point.copy(), output.copy(), stated)
        return None


def meets(network: Network, condition: Condition, point: np.ndarray, output: np.ndarray) -> bool:
    """Whether the output (k,) of a network's original at a point (n,) meets a condition, exactly."""
    if len(output) == network.output_size:
        return condition.satisfied(point, output)
    # The file ends in an ArgMax and gives a class, which no other output exceeds: that answers conditions in which
    # this class reaches others, and nothing that is strict, for it may be a tie.
    if output[0] != np.round(output[0]) or condition.strict.any():
        return False
    return bool((condition.output_rows[:, int(output[0])] < 0).all())
