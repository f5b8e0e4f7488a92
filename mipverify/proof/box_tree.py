"""The tree of boxes behind a case distinction on the input box, kept where derivations are recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mipverify.network import sources
from mipverify.proof.derivation import Derivation, Pass, Tightened

if TYPE_CHECKING:
    from mipverify.proof.bounds import Bounds
    from mipverify.proof.facts import Claim


@dataclass(frozen=True, eq=False)
class Halving:
    """Boxes `entries` (G,) of some were halved along an axis (G,) at a value (G,), NaN where no number lies between."""

    entries: np.ndarray
    axis: np.ndarray
    at: np.ndarray


@dataclass(eq=False)
class BoxTree:
    """Grows as boxes are settled. Box 0 is the whole.

    halves: by box its axis, the value and the two halves. closed: by box, for rows that were closed there a pass and
    which of its rows shows it.
    """

    halves: dict[int, tuple[int, float, int, int]] = field(default_factory=dict)
    closed: dict[int, dict[int, tuple[Pass, int]]] = field(default_factory=dict)
    count: int = 1

    def settle(
        self, boxes: np.ndarray, closed: Mapping[tuple[int, int], tuple[Pass, int]], halving: Halving | None
    ) -> np.ndarray:
        """Take over what became of boxes (K,); the halves, first all lower ones.

        closed: by place among the boxes, and row.
        """
        for (place, row), shown in closed.items():
            self.closed.setdefault(int(boxes[place]), {})[row] = shown
        if halving is None:
            return np.zeros(0, int)
        size = len(halving.entries)
        halves = np.arange(self.count, self.count + 2 * size)
        self.count += 2 * size
        steps = zip(boxes[halving.entries].tolist(), halving.axis.tolist(), halving.at.tolist(), strict=True)
        for place, (box, axis, at) in enumerate(steps):
            self.halves[box] = axis, at, int(halves[place]), int(halves[size + place])
        return halves


@dataclass(frozen=True, eq=False)
class PartsOf(Derivation):
    """Bounds over parts of the one box of bounds `of`, by interval arithmetic and CROWN where units are unstable."""

    of: Derivation

    @staticmethod
    def are(how: Derivation | None) -> bool:
        """Whether bounds are such, tightened or not."""
        while isinstance(how, Tightened):
            how = how.of
        return isinstance(how, PartsOf)


@dataclass(frozen=True, eq=False)
class Boxed(Derivation):
    """Row `row` of a case distinction on the box of bounds `of`. units: what all its rows stand for, entries of `node`.

    tightened: the pre-activations that CROWN tightened in each part, in order.
    """

    of: Derivation
    tree: BoxTree
    row: int
    node: int
    units: np.ndarray
    tightened: tuple[int, ...]


def boxed(bounds: Bounds, claims: Sequence[Claim], tree: BoxTree | None, row: int) -> Boxed | None:
    """How a row was proven; None where that is not recorded, or rows stand for more than single units of one node."""
    nodes = {claim.node for claim in claims}
    if tree is None or bounds.derivation is None or len(nodes) > 1 or any(claim.units.size > 1 for claim in claims):
        return None
    network = bounds.network
    # Interval arithmetic is exact where nothing is read but a box.
    tightened = tuple(
        node for node in network.preactivations if not bounds.over_boxes or set(sources(network.nodes[node])) != {0}
    )
    units = np.array([int(claim.units.reshape(-1)[0]) for claim in claims])
    return Boxed(bounds.derivation, tree, row, nodes.pop(), units, tightened)
