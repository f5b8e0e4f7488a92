"""What the relaxation of some nodes shows to a branching rule, and what their children start with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from mipverify.presolve import Optimum
from mipverify.solvers.branch_and_bound.splits import Node

from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import Assumption


@dataclass(frozen=True, eq=False)
class Relaxed:
    """nodes (K): open ones. optimum: of their rows, one each, within bounds (batch K). estimate: quick bounds of nodes.

    A unit (ReLU node, flat unit) is unstable where `bounds` say so; any of these may be split.
    """

    nodes: Sequence[Node]
    optimum: Optimum
    bounds: Bounds
    estimate: Callable[[Sequence[Node]], np.ndarray]

    def size(self, relu: int) -> int:
        """Units of a ReLU node."""
        return int(np.prod(self.bounds.network.nodes[relu].shape))

    def unstable(self, relu: int) -> np.ndarray:
        """Which units of a ReLU node may be split, (K, units)."""
        return self._each(np.asarray(self.bounds.unstable(relu)))

    def weight(self, relu: int) -> np.ndarray:
        """The coefficients with which the nodes' rows meet the units of a ReLU node, (K, units)."""
        return self._each(self.optimum.row.passed[relu])

    def upper_offset(self, relu: int) -> np.ndarray:
        """The offsets of the lines above the units of a ReLU node, (K, units); 0 where they are stable."""
        return self._each(np.asarray(self.bounds.lines[relu].upper_offset))

    def _each(self, values: np.ndarray) -> np.ndarray:
        """One flat row for each node: bounds that all share have one."""
        return np.broadcast_to(values.reshape(len(values), -1), (len(self.nodes), int(np.prod(values.shape[1:]))))

    def pair(self, k: int, unit: tuple[int, int]) -> tuple[Node, Node]:
        """The children of node k, with the unit active and inactive, not bounded yet."""
        relu, index = unit
        weight, slope = (float(array[k, index]) for array in self._lines[relu])
        active, inactive = (child(self.nodes[k], unit, sign, weight, slope) for sign in (1, -1))
        return active, inactive

    @cached_property
    def _lines(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        return {relu: _lines(self.optimum, self.bounds, relu) for relu in self.optimum.row.passed}


def child(node: Node, unit: tuple[int, int], sign: int, weight: float, slope: float) -> Node:
    """The node with one more unit fixed, carrying its parent's bound, slopes and multipliers.

    weight: the coefficient with which the parent's row meets the unit. slope: that of the line it goes on with. The
    split's multiplier starts where the child keeps this line if it can, so that its bound starts no lower.
    """
    relu, index = unit
    multiplier = max(weight - slope, 0.0) if sign > 0 else min(-slope, 0.0)
    array = node.multipliers[relu].copy() if relu in node.multipliers else np.zeros(node.slopes[relu].shape, np.float32)
    array[index] = multiplier
    assumption = Assumption((*node.splits, (*unit, sign)), node.assumption.ceilings)
    return replace(node, assumption=assumption, multipliers={**node.multipliers, relu: array}, excess=None, fact=None)


def _lines(optimum: Optimum, bounds: Bounds, node: int) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients (K, units) with which rows meet a ReLU node, and the slopes of the lines they go on with."""
    weight = optimum.row.passed[node]
    count = len(weight)
    if node in optimum.row.relaxed:
        return weight.reshape(count, -1), optimum.row.relaxed[node].slope
    line = np.where(weight > 0, optimum.evidence.slopes[node], bounds.lines[node].upper_slope)
    return weight.reshape(count, -1), (weight * line).reshape(count, -1)
