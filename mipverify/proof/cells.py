"""The ledger of cells of transforms: what holds in every cell holds of all transforms (rule 21)."""

from __future__ import annotations

import numpy as np

from mipverify.network import Network
from mipverify.proof.bounds import Bounds
from mipverify.proof.enclosure import Enclosure, Floats
from mipverify.specification.threats.transform import Transforms


class Cells:
    """The ledger of cells of transforms that are not done with: at first one, all parameters.

    What is proven in every cell of a margin network's outputs holds of all transforms. A cell goes only for two halves
    of it, or for bounds of all outputs.
    """

    def __init__(self, transforms: Transforms, margins: Network):
        self._transforms, self._margins = transforms, margins
        radius = transforms.outward
        self._cells: dict[int, tuple[Floats, Floats]] = {0: (-radius, radius)}
        self._next, self._reached = 1, np.full(margins.output_size, np.inf)

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def open(self) -> list[int]:
        """The numbers of the cells that are not done with, the oldest first."""
        return list(self._cells)

    def cell(self, number: int) -> tuple[Floats, Floats]:
        """Both ends (k,) of a cell. KeyError where it is not open."""
        low, high = self._cells[number]
        return low.copy(), high.copy()

    def halve(self, number: int, axis: int) -> tuple[int, int]:
        """Two halves, along a parameter, in the place of a cell. KeyError where it is not open."""
        low, high = self._cells.pop(number)
        middle_high, middle_low = high.copy(), low.copy()
        middle_high[axis] = middle_low[axis] = 0.5 * low[axis] + 0.5 * high[axis]
        first, second = self._next, self._next + 1
        self._next += 2
        self._cells[first], self._cells[second] = (low, middle_high), (middle_low, high)
        return first, second

    def close(self, number: int, images: Enclosure, bounds: Bounds, entry: int) -> None:
        """Be done with a cell, entry `entry` of `images`, whose inputs `bounds` of the margin network are about.

        KeyError where it is not open; ValueError where the bounds are about something else, or are not finite.
        """
        low, high = self._cells[number]
        same = np.array_equal(low, images.low[entry]) and np.array_equal(high, images.high[entry])
        if images.transforms is not self._transforms or not same:
            raise ValueError("the images are those of another cell")
        if bounds.network is not self._margins or bounds.scope.key != images.scope.key:
            raise ValueError("the bounds are about something else")
        if not bounds.finite()[entry]:
            raise ValueError("the bounds are not finite")
        del self._cells[number]
        self._reached = np.minimum(self._reached, bounds.lower[bounds.network.output][entry].reshape(-1))

    @property
    def lower(self) -> Floats:
        """Proven lower bounds of all outputs over all transforms, -inf while a cell is open."""
        return self._reached.copy() if not self._cells else np.full(len(self._reached), -np.inf)
