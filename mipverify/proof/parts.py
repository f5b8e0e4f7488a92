"""Rows in parts: as many as are passed back together, in bounded memory and time; between two, someone may stop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mipverify.network import Network

ROW_BYTES = 32 * 2**20  # rows of one pass: small enough to stay near the caches, large enough for dense products
ROW_WORK = 2**29  # multiplications of one pass: 0.1 s or so, for whoever is to stop between two


def never() -> bool:
    """The `stop` of work that goes on to its end."""
    return False


def row_chunks(network: Network, node: int, count: int, passes: int = 1) -> Iterator[slice]:
    """Slices of `count` rows, each small enough for some passes back from `node`, in memory and in time.

    By estimated work and not by the clock, so that the same question gets the same slices, and the same bounds.
    """
    widest = max(int(np.prod(n.shape)) for n in network.nodes[: node + 1])
    size = max(1, min(ROW_BYTES // (8 * widest), ROW_WORK // (passes * network.work[node])))
    for begin in range(0, count, size):
        yield slice(begin, min(count, begin + size))


class RowCosts:
    """What one row costs at the nodes that it has been passed back through, as whoever passes it finds out."""

    def __init__(self) -> None:
        self._costs: dict[int, tuple[int, int]] = {}

    def count(self, node: int, entries: int, work: int) -> None:
        """Note what a row costs at a node: coefficients, and multiplications on their way through it."""
        self._costs[node] = entries, work

    @property
    def entries(self) -> int:
        """Most coefficients of a row at any node."""
        return max(entries for entries, _ in self._costs.values())

    @property
    def work(self) -> int:
        """Multiplications of passing a row back, about."""
        return 1 + sum(work for _, work in self._costs.values())
