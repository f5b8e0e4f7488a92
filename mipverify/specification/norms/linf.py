"""The l_inf norm: the largest entry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np

from mipverify.specification.norms.norm import Floats, Norm


@dataclass(frozen=True)
class Linf(Norm):
    """Balls of it are boxes."""

    name: ClassVar[str] = "linf"

    def length(self, steps: Floats) -> Floats:
        return np.asarray(np.abs(steps).max(axis=-1, initial=0.0))

    def dual_length(self, rows: Floats) -> Floats:
        return np.asarray(np.abs(rows).sum(axis=-1))

    def at_most(self, steps: Iterable[Fraction], radius: Fraction) -> bool:
        return all(step <= radius for step in steps)
