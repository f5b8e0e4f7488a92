"""Several inputs, each from a set of its own: the product of these sets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipverify.specification.linear_system import LinearSystem, side_by_side
from mipverify.specification.sets.box import Box
from mipverify.specification.sets.input_set import Floats, InputSet, Proposal


@dataclass(frozen=True, eq=False)
class PartProposals(Proposal):
    """For rows a (R, n) the evidence for the coefficients of each of the product's sets, for rule 8."""

    parts: tuple[Proposal, ...]


@dataclass(frozen=True, eq=False)
class Product(InputSet):
    """All inputs that follow one another, the k-th from the k-th of `sets`."""

    sets: tuple[InputSet, ...]

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where the inputs of each set stand."""
        return slices_of([each.size for each in self.sets])

    @cached_property
    def box(self) -> Box:
        return Box.joined([each.box for each in self.sets])

    @property
    def is_box(self) -> bool:
        return all(each.is_box for each in self.sets)

    @property
    def center(self) -> Floats:
        return np.concatenate([each.center for each in self.sets])

    def contains(self, x: ArrayLike) -> bool:
        flat = np.asarray(x).reshape(-1)
        return all(each.contains(flat[some]) for each, some in zip(self.sets, self.slices, strict=True))

    def nearest_float32(self, points: ArrayLike) -> NDArray[np.float32]:
        wide = np.asarray(points)
        moved = [each.nearest_float32(wide[:, some]) for each, some in zip(self.sets, self.slices, strict=True)]
        return np.concatenate(moved, axis=1)

    def propose(self, rows: Floats, lower: Floats, upper: Floats) -> PartProposals:
        found = [
            each.propose(rows[:, some], lower[:, some], upper[:, some])
            for each, some in zip(self.sets, self.slices, strict=True)
        ]
        return PartProposals(np.concatenate([part.points for part in found], axis=1), tuple(found))

    def linear_system(self, low: Floats, high: Floats) -> LinearSystem:
        systems = [each.linear_system(low[some], high[some]) for each, some in zip(self.sets, self.slices, strict=True)]
        return side_by_side(systems, [each.size for each in self.sets])

    def part(self, box: Box) -> Product:
        return Product(tuple(each.part(box.taken(some)) for each, some in zip(self.sets, self.slices, strict=True)))

    def __str__(self) -> str:
        return " x ".join(f"({each})" for each in self.sets)


def slices_of(sizes: Sequence[int]) -> tuple[slice, ...]:
    """Where parts of these sizes stand that follow one another."""
    return tuple(slice(*ends) for ends in itertools.pairwise(itertools.accumulate(sizes, initial=0)))
