"""Which signs units take in a box, as far as gradients find them: nobody need try to prove the opposite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mipverify.attack.pgd import Attack, Project, descend
from mipverify.network import Network

SETTINGS = Attack(steps=12)
ROWS = 256  # walks at once


def find_signs(
    network: Network,
    lower: np.ndarray,
    upper: np.ndarray,
    units: np.ndarray,
    stop: Callable[[], bool] = lambda: False,
    project: Project | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Masks (U,), (U,) of the output's units that are found not to be positive, and not to be negative.

    lower, upper: float32 box (n,). A walk down and one up for each unit, from the middle of the box. project: as in
    `pgd`.
    """
    seen = np.zeros((2, len(units)), bool)
    for begin in range(0, len(units), ROWS // 2):
        some = units[begin : begin + ROWS // 2]
        count = len(some)
        rows = np.zeros((2 * count, network.output_size), np.float32)
        rows[np.arange(2 * count), np.tile(some, 2)] = np.repeat([1, -1], count)
        own = np.zeros(2 * count, bool)

        def accept(walks: np.ndarray, points: np.ndarray, own: np.ndarray = own) -> bool:
            own[walks] = True
            return bool(own.all())

        middle = np.tile(0.5 * (lower + upper), (2 * count, 1)).astype(np.float32)
        start = middle if project is None else project(middle)
        descend(network, start, lower[None], upper[None], rows, SETTINGS, accept, stop, project)
        seen[:, begin : begin + count] = own.reshape(2, count)
    return seen[0], seen[1]
