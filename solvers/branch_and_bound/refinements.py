"""What raises the bounds of nodes that a quick ascent has left open: a patient one, clipped intermediate bounds, a long
ascent and linear programs. Each is tried as far as it pays, measured on the nodes before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from mipverify.presolve import Optimum, Search
from mipverify.solvers.branch_and_bound.domain_clipping import DomainClipping
from mipverify.solvers.branch_and_bound.programs import NodePrograms
from mipverify.solvers.branch_and_bound.splits import Node

from mipverify.proof.bounds import Bounds

PATIENT = Search(iterations=60, slope_step=0.1, decay=0.98)
LONG = Search(iterations=300, slope_step=0.1, decay=0.985)
LOOK = Search(iterations=0)  # the optimum once more, for those who need what is behind a bound
STALLED = 0.02  # of the distance to zero: a split that gains less was not understood by a quick ascent
CLIPS = 4  # times that intermediate bounds of a node are clipped in turn with its own bound
WORTH = 0.05  # of the distance to zero that the last time must have gained
FORGET = 0.3  # of what was known of gains, with each batch: ten batches ago counts for 3 %
TRY_AGAIN = 8  # batches, after which it is looked whether what did not pay does by now
STUCK = 3  # splits in a row that gained less than STALLED, after which a node gets stronger remedies,
HELPS = 0.05  # each if the last ones gained this much of the distance to zero


class Ascents(Protocol):
    """The bounder whose nodes are refined."""

    def solve(
        self, nodes: Sequence[Node], search: Search | None = None, stop: Callable[[], bool] | None = None
    ) -> tuple[list[Node], Optimum, Bounds]:
        """One ascent: nodes with better bounds, the optimum behind them (one row a node), and what it is within."""

    def bounds(self, nodes: Sequence[Node]) -> Bounds:
        """Bounds of intermediate values in the nodes, one batch entry each."""


@dataclass(eq=False)
class Batch:
    """Nodes that are bounded together: as they came, as they are by now, and the inputs (K, *input_shape) that minimize
    their relaxations."""

    ascents: Ascents
    before: Sequence[Node]
    nodes: list[Node]
    points: np.ndarray
    stop: Callable[[], bool] | None

    def open(self) -> list[int]:
        """Which are."""
        return [k for k, node in enumerate(self.nodes) if not node.lower > 0]

    def put(self, some: Sequence[int], nodes: Sequence[Node]) -> None:
        """Some of them, raised."""
        for k, node in zip(some, nodes, strict=True):
            self.nodes[k] = node

    def ascend(self, some: Sequence[int], search: Search | None = None) -> None:
        """Another ascent for some of them, from where they are."""
        found, optimum, _ = self.ascents.solve([self.nodes[k] for k in some], search, self.stop)
        self.points[some] = optimum.minimizer
        self.put(some, found)


class Refinement(Protocol):
    """Raises bounds; evidence only, of which rules of `mipverify.proof` make them."""

    def raise_bounds(self, batch: Batch) -> None:
        """Of nodes that are open still, in place."""


class PatientAscent:
    """A longer ascent where a split has brought hardly anything.

    Without it, such nodes are split again and again, and all below them stays as low.
    """

    def __init__(self, search: Search):
        self.search = search

    def raise_bounds(self, batch: Batch) -> None:
        """Nodes that the first ascent hardly raised above their parent."""
        stalled = [
            k
            for k, (old, new) in enumerate(zip(batch.before, batch.nodes, strict=True))
            if not new.lower > 0 and new.lower - old.lower < STALLED * -old.lower < np.inf
        ]
        if stalled:
            batch.ascend(stalled, self.search)


class Clipping:
    """Intermediate bounds clipped to where rows are not above a ceiling, in turn with ascents, while that pays.

    It does where it brings nodes closer to zero than splitting, which costs about as much.
    """

    def __init__(self, clipping: DomainClipping):
        self.clipping, self._gain, self._split_gain, self._turn = clipping, Gain(1.0), Gain(0.0), 0

    def raise_bounds(self, batch: Batch) -> None:
        """Nodes that are open, and those of them again that gained."""
        self._turn += 1
        open_ = batch.open()
        if not open_:
            return
        self._split_gain.add(share_of_way([batch.before[k] for k in open_], [batch.nodes[k] for k in open_]))
        pays = self._gain.mean >= self._split_gain.mean or self._turn % TRY_AGAIN == 0
        for turn in range(CLIPS if pays else 0):
            if not open_ or (batch.stop is not None and batch.stop()):
                break
            tried, before = open_, [batch.nodes[k] for k in open_]
            batch.put(tried, self.clipping.clip(*batch.ascents.solve(before, LOOK)))
            open_ = [k for k in tried if not batch.nodes[k].lower > 0]
            if open_:
                batch.ascend(open_)
            gained = share_of_way(before, [batch.nodes[k] for k in tried])
            if turn == 0:
                self._gain.add(gained)
            worth = zip(tried, gained, strict=True)
            open_ = [k for k, share in worth if share > WORTH and not batch.nodes[k].lower > 0]


class Remedy(Protocol):
    """What may raise the bounds of nodes at which ascents are stuck."""

    def raise_bounds(self, batch: Batch, some: Sequence[int]) -> None:
        """Of some nodes of a batch, in place."""


class LongAscent:
    """An ascent several times as long: with cuts, no shorter one may come back to where it began."""

    def __init__(self, search: Search = LONG):
        self.search = search

    def raise_bounds(self, batch: Batch, some: Sequence[int]) -> None:
        """From where they are."""
        batch.ascend(some, self.search)


class Programs:
    """Linear programs."""

    def __init__(self, programs: NodePrograms):
        self.programs = programs

    def raise_bounds(self, batch: Batch, some: Sequence[int]) -> None:
        """Each starts from the basis of the parent."""
        own, minimizers = [batch.nodes[k] for k in some], batch.points[some]
        raised = self.programs.raise_bounds(own, batch.ascents.bounds(own), minimizers, batch.stop or (lambda: False))
        batch.points[some] = minimizers
        batch.put(some, raised)


class Stuck:
    """Remedies for nodes that are hardly above where their parents' parents were, one after the other, while they help.

    after: splits in a row that brought little, after which a node gets them.
    """

    def __init__(self, remedies: Sequence[Remedy], after: int = STUCK):
        self.remedies, self.after, self._turn = [(remedy, Gain(1.0)) for remedy in remedies], after, 0

    def raise_bounds(self, batch: Batch) -> None:
        """Nodes that are open still and stuck."""
        self._turn += 1
        gained = share_of_way(batch.before, batch.nodes)
        for k, node in enumerate(batch.nodes):
            batch.nodes[k] = replace(node, stalled=0 if gained[k] >= STALLED else node.stalled + 1)
        for remedy, gain in self.remedies:
            some = [k for k in batch.open() if batch.nodes[k].stalled >= self.after]
            if not some or (batch.stop is not None and batch.stop()):
                return
            if gain.mean >= HELPS or self._turn % TRY_AGAIN == 0:
                before = [batch.nodes[k] for k in some]
                remedy.raise_bounds(batch, some)
                gain.add(share_of_way(before, [batch.nodes[k] for k in some]))


@dataclass
class Gain:
    """A mean that forgets."""

    mean: float

    def add(self, values: np.ndarray) -> None:
        """Take in those of a batch."""
        if len(values):
            self.mean += FORGET * (float(values.mean()) - self.mean)


def share_of_way(before: Sequence[Node], after: Sequence[Node]) -> np.ndarray:
    """By how much of their distance to zero nodes (K,) were raised; 0 for those that had no bound."""
    low, high = (np.array([node.lower for node in nodes]) for nodes in (before, after))
    known = np.isfinite(low) & (low < 0)
    distance = np.where(known, -low, 1.0)
    return np.where(known, np.clip((high - np.where(known, low, 0.0)) / distance, 0.0, 1.0), 0.0)
