"""The loop that all searches share: take open subproblems, share them out, put back what is left of them.

A tree says what its subproblems are, which come first (its store), how they are bounded and split (its bounder and its
branching rule), and what that proves (a ledger of `mipverify.proof`). The loop knows nothing of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mipverify.parallel import SERIAL, Executor

Stop = Callable[[], bool]


@dataclass(frozen=True, eq=False)
class Batch:
    """Subproblems that are worked on together: `work(context, part, stop)` for each of the parts.

    here: in this process, whoever else could help.
    """

    work: Callable[[Any, Any, Stop], Any]
    context: Any
    parts: Sequence[Any]
    here: bool = False


class Tree(Protocol):
    """What a search goes through."""

    def open(self) -> bool:
        """Whether there is anything left to work on."""

    def obstacle(self) -> str:
        """Why the search must not go on though there is, or ""."""

    def take(self, pool: Executor) -> Batch:
        """The next subproblems, which leave the tree."""

    def put_back(self, part: Any) -> None:
        """Subproblems that were taken, and that nobody has worked on."""

    def absorb(self, part: Any, done: Any) -> np.ndarray | None:
        """Take in what became of a part; the points (R, ...) that it suggests to try, if any."""

    def rest(self, answered: bool) -> None:
        """Between two batches. answered: everybody has done their part."""


@dataclass(frozen=True)
class Ending:
    """witness: what `try_points` returned, if it accepted a point. reason: why the tree is open still; "time" is the
    only one with which the search can go on."""

    witness: object | None = None
    reason: str = ""


def explore(tree: Tree, try_points: Callable[[np.ndarray], object | None], pool: Executor, stop: Stop) -> Ending:
    """Work on a tree until nothing is open, `try_points` accepts a point, or the search may not go on."""
    while tree.open():
        reason = "time" if stop() else tree.obstacle()
        if reason:
            return Ending(reason=reason)
        batch = tree.take(pool)
        results = (SERIAL if batch.here else pool).map(batch.work, batch.context, batch.parts, stop)
        for part, done in zip(batch.parts, results, strict=True):
            if done is None:
                tree.put_back(part)
                continue
            points = tree.absorb(part, done)
            witness = None if points is None else try_points(points)
            if witness is not None:
                return Ending(witness)
        tree.rest(all(done is not None for done in results))
    return Ending()
