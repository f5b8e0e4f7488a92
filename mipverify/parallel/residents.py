"""Objects that stay in the process that made them: others get something that stands for them, and hand it back.

What such an object holds may be large, and what is known by its identity must be the same object when it comes back.
"""

from __future__ import annotations

import io
import itertools
import pickle
from collections.abc import Callable
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary, WeakValueDictionary


class Resident(Protocol):
    """Stays where it was made: an object of any class that says what stands for it elsewhere."""

    def stand_in(self) -> Resident:
        """A new object that stands for this one elsewhere, as far as it is looked at there."""


class Home:
    """The side that keeps residents: what it has sent to one other process, by number."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._kept: dict[int, Resident] = {}
        self._known: dict[int, int] = {}  # by identity of what is kept

    def dumps(self, content: object) -> bytes:
        """Content for the other side, with numbers and what stands for them in the place of residents."""
        return _dumped(content, self._named)

    def loads(self, data: bytes) -> Any:
        """Content that the other side made: residents come back as they were."""
        return _loaded(data, self._kept.__getitem__)

    def mark(self) -> int:
        """How much has been sent so far, for `forget`."""
        return len(self._kept)

    def forget(self, mark: int = 0) -> None:
        """Let go of all that was sent since then: the other side no longer hands it back."""
        for number in list(self._kept)[mark:]:
            del self._known[id(self._kept.pop(number))]

    def _named(self, item: Resident) -> tuple[int, Resident | None]:
        if id(item) in self._known:
            return self._known[id(item)], None
        number = self._known[id(item)] = next(self._numbers)
        self._kept[number] = item
        return number, item.stand_in()


class Abroad:
    """The other side: it holds what stands for residents."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[int, Resident] = WeakValueDictionary()
        self._numbers: WeakKeyDictionary[Resident, int] = WeakKeyDictionary()

    def loads(self, data: bytes) -> Any:
        """Content from home."""
        return _loaded(data, self._found)

    def dumps(self, content: object) -> bytes:
        """Content for home, where residents are known by their numbers; others are sent as they are."""
        return _dumped(content, self._numbers.get)

    def _found(self, name: tuple[int, Resident | None]) -> Resident:
        number, item = name
        if item is None:
            return self._known[number]
        self._known[number], self._numbers[item] = item, number
        return item


def _dumped(content: object, name: Callable[[Resident], object | None]) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, name).dump(content)
    return buffer.getvalue()


def _loaded(data: bytes, found: Callable[[Any], Resident]) -> Any:
    return _Unpickler(io.BytesIO(data), found).load()


class _Pickler(pickle.Pickler):
    def __init__(self, buffer: io.BytesIO, name: Callable[[Resident], object | None]):
        super().__init__(buffer, protocol=pickle.HIGHEST_PROTOCOL)
        self._name = name
        self._stand_ins: dict[int, object] = {}  # by identity: sent as they are

    def persistent_id(self, item: object) -> object | None:
        if isinstance(item, type) or not hasattr(type(item), "stand_in") or id(item) in self._stand_ins:
            return None
        name = self._name(cast(Resident, item))
        if isinstance(name, tuple) and name[1] is not None:
            self._stand_ins[id(name[1])] = name[1]
        return name


class _Unpickler(pickle.Unpickler):
    def __init__(self, buffer: io.BytesIO, found: Callable[[Any], Resident]):
        super().__init__(buffer)
        self._found = found

    def persistent_load(self, name: Any) -> Resident:
        return self._found(name)
