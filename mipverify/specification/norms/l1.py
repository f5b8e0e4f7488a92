"""The l_1 norm: the sum of all entries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import scipy

from mipverify.specification.linear_system import LinearSystem
from mipverify.specification.norms.norm import BallNorm, Floats


@dataclass(frozen=True)
class L1(BallNorm):
    """Balls of it are polytopes."""

    name: ClassVar[str] = "l1"

    def length(self, steps: Floats) -> Floats:
        return np.asarray(np.abs(steps).sum(axis=-1))

    def dual_length(self, rows: Floats) -> Floats:
        return np.asarray(np.abs(rows).max(axis=-1, initial=0.0))

    def at_most(self, steps: Iterable[Fraction], radius: Fraction) -> bool:
        return sum(steps, Fraction(0)) <= radius

    def split(self, worth: Floats, room: Floats, radius: float) -> tuple[Floats, Floats]:
        """The radius goes to the coordinates that are worth most; the last of them says what any is worth."""
        order = np.argsort(-worth, axis=1)
        rooms = np.take_along_axis(room, order, axis=1)
        spent = np.cumsum(rooms, axis=1)
        step = np.zeros_like(worth)
        np.put_along_axis(step, order, np.clip(radius - (spent - rooms), 0, rooms), axis=1)
        last = (spent >= radius).argmax(axis=1)
        level = np.take_along_axis(worth, order, axis=1)[np.arange(len(worth)), last]
        level = np.where(spent[:, -1] >= radius, level, 0.0)
        return step, np.minimum(worth, level[:, None])

    def linear_system(self, center: Floats, scale: Floats, radius: Fraction, low: Floats, high: Floats) -> LinearSystem:
        """A column t >= |x - center| / scale for each coordinate that may move; they add up to at most the radius."""
        free, limit = np.flatnonzero(scale > 0), float(radius) * (1 + 1e-12)
        count, total = len(free), len(center) + len(free)
        sizes, index = len(center) + np.arange(count), np.tile(np.arange(count), 2)
        rows = []
        for sign in (-1.0, 1.0):  # scale * t >= |x - center|
            entries = np.concatenate([scale[free], np.full(count, sign)])
            rows.append(scipy.sparse.csr_array((entries, (index, np.concatenate([sizes, free]))), (count, total)))
        rows.append(scipy.sparse.csr_array((np.ones(count), (np.zeros(count, int), sizes)), (1, total)))
        lower = np.concatenate([-center[free], center[free], [-np.inf]])
        upper = np.append(np.full(2 * count, np.inf), limit)
        matrix = scipy.sparse.csr_array(scipy.sparse.vstack(rows, format="csr"))
        return LinearSystem(matrix, lower, upper, np.zeros(count), np.full(count, limit))
