"""Nodes of the search tree: which ReLUs are fixed to which phase, and what is known of the relaxation under them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from mipverify.proof.bounds import EntryBounds
from mipverify.proof.facts import EVERYWHERE, Assumption, RowBounds


@dataclass(frozen=True, eq=False)
class Node:
    """One subproblem: condition `condition` under an assumption.

    lower: proven lower bound, by entry `place` of the batch that `fact` is about (None: only by what its parent had).
    slopes, multipliers, cut_multipliers: by ReLU node, flat float32 arrays with which that bound holds: where its
    children start. entry: bounds of pre-activations of its own; the root's where there are none. stalled: splits in a
    row that brought little. basis: the last one of its linear program, or of its parent's. excess: by ReLU node, how
    far that program's minimizer is above the ReLU.
    """

    condition: int
    assumption: Assumption
    lower: float
    slopes: dict[int, np.ndarray]
    multipliers: dict[int, np.ndarray]
    cut_multipliers: dict[int, np.ndarray] = field(default_factory=dict)
    fact: RowBounds | None = None
    place: int = 0
    entry: EntryBounds | None = None
    stalled: int = 0
    basis: np.ndarray | None = None
    excess: dict[int, np.ndarray] | None = None

    @property
    def splits(self) -> tuple[tuple[int, int, int], ...]:
        """(ReLU node, flat unit, +1 active or -1 inactive), from the root down."""
        return self.assumption.splits

    @property
    def ceiling(self) -> float:
        """Above this nothing is known of the node's row but that."""
        return min((ceiling.level for ceiling in self.assumption.ceilings), default=float("inf"))

    @property
    def bytes(self) -> int:
        """Size of its arrays."""
        arrays = [*self.slopes.values(), *self.multipliers.values(), *self.cut_multipliers.values()]
        arrays += [] if self.basis is None else [self.basis]
        arrays += [] if self.excess is None else self.excess.values()
        return sum(a.nbytes for a in arrays) + (0 if self.entry is None else self.entry.bytes)

    def learned(self, fact: RowBounds, place: int) -> Node:
        """The node with what a fact about it says, if that is more than it had."""
        lower = min(float(fact.lower[place]), self.ceiling)
        return replace(self, lower=lower, fact=fact, place=place) if lower > self.lower else self


def root(condition: int) -> Node:
    """The whole problem of one condition."""
    return Node(condition, EVERYWHERE, float("-inf"), {}, {})


class NodeStore:
    """Open nodes, worst bound first: the order in which counterexamples are found and the global bound rises.

    Of equal bounds the deepest comes first: where splits raise no bound until they contradict each other, as in
    networks that encode combinatorial problems, a tree that is searched level by level never ends.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, Node]] = []
        self._count = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Node]:
        """All of them, in no order."""
        return (node for *_, node in self._heap)

    def push(self, node: Node) -> None:
        heapq.heappush(self._heap, (node.lower, -len(node.splits), next(self._count), node))

    def pop(self, count: int) -> list[Node]:
        """The `count` worst nodes, or all there are."""
        return [heapq.heappop(self._heap)[-1] for _ in range(min(count, len(self._heap)))]

    def pop_nearest(self, count: int) -> list[Node]:
        """The `count` nodes that are nearest to being closed, or all there are."""
        self._heap.sort()  # a heap still
        found = self._heap[-count:]
        del self._heap[-count:]
        return [node for *_, node in reversed(found)]

    def lowest(self) -> float:
        """The proven bound over all open nodes; inf where none is open."""
        return self._heap[0][0] if self._heap else float("inf")

    def bytes_per_node(self) -> int:
        """Size of one node's arrays."""
        return self._heap[0][-1].bytes if self._heap else 0
