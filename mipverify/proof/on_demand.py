"""What is known of each node of a network, made when somebody asks for it: most methods ask for a part of the nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class ByNode(Mapping[int, T]):
    """By node, what `make` makes of it, once."""

    def __init__(self, nodes: Sequence[int], make: Callable[[int], T]):
        self._nodes, self._make, self._known = nodes, make, dict[int, T]()

    def __getitem__(self, node: int) -> T:
        if node not in self._known:
            if node not in self._nodes:
                raise KeyError(node)
            self._known[node] = self._make(node)
        return self._known[node]

    def __iter__(self) -> Iterator[int]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


class InOrder(Sequence[T]):
    """For each node, what `make` makes of it and of what it made for the node before (None for the first), once."""

    def __init__(self, count: int, make: Callable[[int, T | None], T]):
        self._count, self._make, self._known = count, make, list[T]()

    def __getitem__(self, index: Any) -> Any:
        while len(self._known) <= index < self._count:
            before = self._known[-1] if self._known else None
            self._known.append(self._make(len(self._known), before))
        return self._known[index]

    def __len__(self) -> int:
        return self._count
