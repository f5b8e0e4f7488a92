"""Tightening by linear programs: the triangle relaxation of all below a unit, with bounds certified by their duals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from mipverify.presolve.layers import Known, tighten_by_layer

from mipverify.errors import Stopped
from mipverify.formulation import Milp, encode
from mipverify.network import Network
from mipverify.proof.backward import Relaxed
from mipverify.proof.bounds import Bounds
from mipverify.specification.regions import Region


class Multipliers(Protocol):
    """A linear program that is solved again and again under other objectives, from its last basis."""

    def bound(self, objective: np.ndarray, offset: float) -> float:
        """A proven lower bound of the minimum of objective (n,) . v + offset; -inf where there is none."""


def lp_tighten(
    network: Network,
    lower: np.ndarray,
    upper: np.ndarray,
    open_program: Callable[[Milp], Multipliers],
    known: Known | None = None,
    stop: Callable[[], bool] = lambda: False,
    region: Region | None = None,
) -> Bounds:
    """Bounds by linear programs, layer by layer [Tjeng et al. 2019, section 4.2], for boxes (B, *input_shape).

    open_program: makes a solver's session of a relaxation (`mipverify.solvers.certified_program`). known: bounds to
    start from; the tighter, the fewer programs. The upper side of a unit first: where it proves the unit inactive, the
    lower side is not asked for. Once `stop` returns true, units keep the bounds they have.
    """

    def bounder(relaxed: Relaxed, node: int, samples: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lows, highs = np.full(len(units), -np.inf), np.full(len(units), np.inf)
        for sample in np.unique(samples):
            try:
                encoding = encode(network, relaxed.bounds.select(np.array([sample])), node, stop)
            except Stopped:
                return lows, highs
            program = open_program(encoding.milp.relaxed())
            for index in np.flatnonzero(samples == sample):
                if stop():
                    return lows, highs
                wanted = encoding.minimize(int(units[index]))
                highs[index] = -program.bound(-wanted.objective, -wanted.offset)
                if highs[index] > 0:
                    lows[index] = program.bound(wanted.objective, wanted.offset)
        return lows, highs

    return tighten_by_layer(network, lower, upper, bounder, known, region, stop)
