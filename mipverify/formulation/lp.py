"""What linear programs are asked and answered with, whoever solves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mipverify.formulation.milp import Milp


@dataclass(frozen=True, eq=False)
class LpAnswer:
    """multipliers (m,): of the optimum, or of the proof that there is no point; basis: int8 (n + m,), columns first,
    from which a similar program may start; point: a minimizer (n,). None where there is none."""

    multipliers: np.ndarray | None
    basis: np.ndarray | None
    point: np.ndarray | None


class LpSession(Protocol):
    """Linear programs of one shape, each from the last basis of a similar one."""

    def solve(self, milp: Milp, basis: np.ndarray | None, cutoff: float, time_limit: float) -> LpAnswer:
        """Minimize a program without integers; nothing above the cutoff is asked for."""
