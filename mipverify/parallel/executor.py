"""Who works on the parts of something: this process alone, or others as well."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

C = TypeVar("C")
T = TypeVar("T")
R = TypeVar("R")

Work = Callable[[C, T, Callable[[], bool]], R]


class Executor(Protocol):
    """Does `work(context, item, stop)` for some items."""

    @property
    def count(self) -> int:
        """How many items are worked on at once, right now: others may join or leave at any time."""

    def map(self, work: Work[C, T, R], context: C, items: Sequence[T], stop: Callable[[], bool]) -> list[R | None]:
        """The result for each item, in order; None where `stop` cut it short.

        work: a function of a module. context: what all items need; worth keeping the same object between calls.
        """


class _Serial:
    count = 1

    def map(self, work: Work[C, T, R], context: C, items: Sequence[T], stop: Callable[[], bool]) -> list[R | None]:
        return [work(context, item, stop) for item in items]


SERIAL: Executor = _Serial()


def partition(items: Any, pool: Executor, least: int = 1) -> list[Any]:
    """All items (a sequence or an array), in as many parts as are worked on at once, none below `least`.

    The only place that asks for the number, and it asks once: between two looks it may change, and items be lost.
    """
    count = min(pool.count, max(1, len(items) // least))
    return [items[k::count] for k in range(count)]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
