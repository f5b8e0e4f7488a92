"""Who works on the parts of something: this process alone, or others as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

C = TypeVar("C")
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

Work = Callable[[C, I, Callable[[], bool]], R]


class Hands(Protocol):
    """Does `work(context, item, stop)` for some items."""

    @property
    def count(self) -> int:
        """How many items are worked on at once: cut the work into so many parts."""

    def map(self, work: Work[C, I, R], context: C, items: Sequence[I], stop: Callable[[], bool]) -> list[R | None]:
        """The result for each item, in order; None where `stop` cut it short.

        work: a function of a module. context: what all items need; worth keeping the same object between calls.
        """


class _Alone:
    count = 1

    def map(self, work: Work[C, I, R], context: C, items: Sequence[I], stop: Callable[[], bool]) -> list[R | None]:
        return [work(context, item, stop) for item in items]


ALONE: Hands = _Alone()
