"""Which unit of one unstable layer to split next: the one whose missing sign costs the semidefinite bound most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Gaps:
    """gap (K, U): what each unit without a sign costs each node's bound. free (K, U): those worth a split, which are
    concave in their row. units (U,): flat, of the node `relu`."""

    gap: np.ndarray
    free: np.ndarray
    relu: int
    units: np.ndarray


class LargestGap:
    """The largest gap first."""

    def choose(self, relaxed: Gaps) -> list[tuple[int, int] | None]:
        """(ReLU node, flat unit) for each node; None where no free unit is left."""
        worst = relaxed.units[np.where(relaxed.free, relaxed.gap, -np.inf).argmax(axis=1)]
        some = np.asarray(relaxed.free.any(axis=1))
        chosen = zip(worst.tolist(), some.tolist(), strict=True)
        return [(relaxed.relu, unit) if left else None for unit, left in chosen]
