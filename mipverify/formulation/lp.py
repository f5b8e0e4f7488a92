"""What linear programs are asked and answered with, whoever solves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mipverify.formulation.milp import Milp


@dataclass(frozen=True, eq=False)
class LpAnswer:
    """What a solver says of a linear program. None where there is none; nothing here is proven.

    optimal: the tolerances are met. empty: it is claimed that there is no point. multipliers (m,): of the rows, of the
    optimum, or of that claim, which no costs belong to. reduced (n,): costs of the columns at the optimum, below zero
    at an upper bound. point (n,): feasible.
    """

    optimal: bool
    multipliers: np.ndarray | None
    reduced: np.ndarray | None
    point: np.ndarray | None
    empty: bool = False


class LpSession(Protocol):
    """A linear program under way: it is opened, changed and solved again, each time from the basis it has.

    Costs, bounds of columns and more rows keep the basis dual or primal feasible; other changes open it anew.
    """

    def open(self, program: Milp, basis: np.ndarray | None = None) -> None:
        """Take a program without integers, in place of any other. basis: where to start, of a similar one."""

    def set_costs(self, costs: np.ndarray, offset: float = 0.0) -> None:
        """Minimize costs (n,) and an offset instead."""

    def set_bounds(self, lower: np.ndarray, upper: np.ndarray) -> None:
        """Other bounds (n,) of the columns."""

    def add_rows(self, matrix: Any, lower: np.ndarray, upper: np.ndarray) -> None:
        """More rows: matrix (k, n), dense or sparse, between lower and upper (k,)."""

    def solve(self, seconds: float, cutoff: float = np.inf) -> LpAnswer:
        """Minimize, for at most that long; nothing above the cutoff is asked for."""

    def basis(self) -> np.ndarray | None:
        """The last basis, int8 (n + m,), columns first; None where there is none."""
