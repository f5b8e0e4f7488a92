"""Activation regions around a witness, each solved exactly: what turns a rough counterexample into a sharp one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from mipverify.attack.closest import ActivationRegion, region_around
from mipverify.engine.budget import Deadline
from mipverify.network import Network
from mipverify.presolve import crown
from mipverify.proof.bounds import Bounds
from mipverify.proof.interval import interval_over, narrowed
from mipverify.specification.sets import InputSet


def unstable_units(network: Network, inputs: InputSet, around: Bounds | None) -> dict[int, np.ndarray]:
    """By pre-activation node, the flat units that CROWN leaves unstable over an input set.

    around: what is known over a set around it.
    """
    bounds = crown(interval_over(network, inputs) if around is None else narrowed(network, inputs, around))
    return {network.relu_source(node): np.flatnonzero(bounds.unstable(node)) for node in network.relus}


def walk_regions(
    margins: Network,
    point: np.ndarray,
    units: Mapping[int, np.ndarray],
    improve: Callable[[ActivationRegion], Iterable[int] | None],
    most: int,
    deadline: Deadline,
) -> None:
    """From the region of a point (n,) to neighboring ones, while they are better, over `most` regions.

    units: by pre-activation node, those whose sign may change. improve: solves a region; the rows that hold its
    solution back, beyond which its neighbors lie, or None where it is no better than those before.
    """
    condition = nearest_condition(margins, point)
    flipped: frozenset[tuple[int, int]] = frozenset()
    tried, waiting = {flipped}, [flipped]
    while waiting and len(tried) < most and not deadline.over():
        flipped = waiting.pop(0)
        region = region_around(margins, point, condition, units, flipped)
        tight = improve(region)
        if tight is None:
            continue
        waiting = []
        for row in tight:
            other = flipped ^ {region.units[row]}
            if other not in tried:
                tried.add(other)
                waiting.append(other)


def nearest_condition(margins: Network, point: np.ndarray) -> int:
    """The condition that is nearest to being met at a point (n,)."""
    values = margins.forward(point.astype(np.float64).reshape(1, *margins.input_shape))
    return int(np.argmin(values.reshape(-1)))
