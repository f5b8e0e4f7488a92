"""Nodes of the search tree: which ReLUs are fixed to which phase, and what is known of the relaxation under them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Clip:
    """How a node came to hidden bounds of its own: the slopes and multipliers whose plane they were clipped with.

    bounds: what they became, as in `Node`; they follow from the plane, the node's splits and the bounds before.
    """

    splits: tuple[tuple[int, int, int], ...]
    slopes: dict[int, np.ndarray]
    multipliers: dict[int, np.ndarray]
    cut_multipliers: dict[int, np.ndarray]
    bounds: dict[int, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Node:
    """One subproblem: condition `condition` under the phases in `splits`.

    splits: (ReLU node, flat unit, +1 active or -1 inactive), from the root down. lower: proven lower bound.
    slopes, multipliers, cut_multipliers: by ReLU node, flat float32 arrays with which that bound holds: where its
    children start. bounds: by pre-activation node, flat lower and upper bounds that hold wherever in this subproblem
    the row is not above `ceiling`; the root's where there are none. clips: how these came about, if the search keeps
    that. stalled: splits in a row that brought little. basis: the last one of its linear program, or of its parent's.
    excess: by ReLU node, how far that program's minimizer is above the ReLU. duals: the multipliers of the program that
    closed the node.
    """

    condition: int
    splits: tuple[tuple[int, int, int], ...]
    lower: float
    slopes: dict[int, np.ndarray]
    multipliers: dict[int, np.ndarray]
    cut_multipliers: dict[int, np.ndarray] = field(default_factory=dict)
    bounds: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    ceiling: float = float("inf")
    clips: tuple[Clip, ...] = ()
    stalled: int = 0
    basis: np.ndarray | None = None
    excess: dict[int, np.ndarray] | None = None
    duals: np.ndarray | None = None

    @property
    def bytes(self) -> int:
        """Size of its arrays."""
        arrays = [*self.slopes.values(), *self.multipliers.values(), *self.cut_multipliers.values()]
        arrays += [] if self.basis is None else [self.basis]
        arrays += [] if self.excess is None else self.excess.values()
        return sum(a.nbytes for a in (*arrays, *(side for pair in self.bounds.values() for side in pair)))


def root(condition: int) -> Node:
    """The whole problem of one condition."""
    return Node(condition, (), float("-inf"), {}, {})


class NodeStore:
    """Open nodes, worst bound first: the order in which counterexamples are found and the global bound rises."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Node]] = []
        self._count = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Node]:
        """All of them, in no order."""
        return (node for _, _, node in self._heap)

    def push(self, node: Node) -> None:
        heapq.heappush(self._heap, (node.lower, next(self._count), node))

    def pop(self, count: int) -> list[Node]:
        """The `count` worst nodes, or all there are."""
        return [heapq.heappop(self._heap)[2] for _ in range(min(count, len(self._heap)))]

    def lowest(self) -> float:
        """The proven bound over all open nodes; inf where none is open."""
        return self._heap[0][0] if self._heap else float("inf")

    def bytes_per_node(self) -> int:
        """Size of one node's arrays."""
        return self._heap[0][2].bytes if self._heap else 0
