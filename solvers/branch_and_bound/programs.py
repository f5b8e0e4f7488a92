"""Linear programs of nodes: what no ascent finds in time, that the splits of a node contradict its hidden bounds.

The triangle relaxation with the bounds of hidden units as bounds of its columns. CROWN has no multipliers for those;
most nodes that its ascents leave open in deep networks are empty. Each program starts from the basis of the parent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from mipverify.presolve import Bounds, Rows
from mipverify.presolve.layered import Layered
from mipverify.solvers.branch_and_bound.splits import Node
from mipverify.solvers.certificate import proven_bound

from mipverify.formulation import Milp
from mipverify.network import Network
from mipverify.proof.relaxation import relax

if TYPE_CHECKING:
    from mipverify.solvers.highs import Restarted

SECONDS = 1.0  # for one program, which is not interrupted
ENOUGH = 0.1  # of the distance to zero: how far above it a bound is asked for, where the node has no ceiling


class NodePrograms:
    """Programs over x, pre-activations z and post-activations y of a layered network, for rows over these.

    rows: one a condition, without samples.
    """

    def __init__(self, network: Network, layered: Layered, rows: Rows):
        self.network, self.layered = network, layered
        n, units = layered.inputs.shape[1], layered.begin[-1]
        one = sp.eye_array(units, format="csr")
        affine = sp.hstack([-sp.csr_array(layered.inputs), one, -sp.csr_array(layered.units)])
        above = sp.hstack([sp.csr_array((units, n)), -one, one])  # y - z
        # Rows y - slope * z: a slope that is zero somewhere must keep its place, for it is not zero everywhere.
        self.matrix = sp.csr_array(sp.vstack([affine, above, above], format="csr"))
        self.matrix.sort_indices()
        self.places = self.matrix.indptr[2 * units : 3 * units]  # of the slopes: z comes before y
        count = len(next(iter(rows.coefficients.values())))
        self.objectives = np.zeros((count, n + 2 * units))
        ((node, array),) = rows.coefficients.items()
        flat = array.reshape(count, -1)
        self.objectives[:, :n] = flat[:, :n]
        self.objectives[:, n + units : n + units + layered.seen[node]] = flat[:, n:]
        constant = np.zeros(count) if rows.constant is None else rows.constant
        self.offsets = constant if rows.deviation is None else np.nextafter(constant - rows.deviation, -np.inf)
        self.affine = tuple(
            np.nextafter(layered.bias + sign * layered.doubt, sign * np.inf) for sign in (-1.0, 1.0)
        )  # what z - inputs @ x - units @ y lies between
        self._session: Restarted | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_session": None}

    @staticmethod
    def of(network: Network, rows: Rows) -> NodePrograms | None:
        """None where the network is not layered, has no ReLUs, rows start elsewhere, or numbers are beyond float64."""
        layered = Layered.of(network, np.float64)
        if (
            layered is None
            or not layered.relus
            or len(rows.coefficients) > 1
            or not rows.coefficients.keys() <= layered.seen.keys()
        ):
            return None
        numbers = layered.inputs, layered.units, layered.bias, layered.doubt, *rows.coefficients.values()
        given = (array for array in (*numbers, rows.constant, rows.deviation) if array is not None)
        return NodePrograms(network, layered, rows) if all(np.isfinite(array).all() for array in given) else None

    def raise_bounds(
        self, nodes: Sequence[Node], bounds: Bounds, points: np.ndarray, stop: Callable[[], bool]
    ) -> list[Node]:
        """Nodes with the bounds of their programs; points (K, *input_shape) become the minimizers where there are any.

        bounds: of the nodes, by batch.
        """
        from mipverify.solvers.highs import Restarted

        if self._session is None:
            self._session = Restarted()
        raised = list(nodes)
        if not _finite(bounds):  # nothing to make a program of
            return raised
        for k, (node, milp) in enumerate(zip(nodes, self._programs(nodes, bounds), strict=True)):
            if stop():
                break
            if milp is None:
                raised[k] = replace(node, lower=max(node.lower, node.ceiling))
                continue
            cutoff = node.ceiling if np.isfinite(node.ceiling) else ENOUGH * abs(node.lower)
            found, excess = self._session.solve(milp, node.basis, cutoff, SECONDS), None
            if found.point is not None:
                n, units = self.layered.inputs.shape[1], self.layered.begin[-1]
                x, z, y = np.split(found.point, [n, n + units])
                # A solver has its tolerances.
                points[k] = np.clip(x, milp.lower[:n], milp.upper[:n]).reshape(points.shape[1:])
                excess = self._by_layer(y - np.maximum(z, 0.0))
            lower = max(node.lower, min(found.bound, node.ceiling))
            duals = found.multipliers if lower > 0 else None
            raised[k] = replace(node, lower=lower, basis=found.basis, excess=excess, duals=duals)
        return raised

    def proven(self, node: Node, bounds: Bounds) -> float:
        """What the multipliers of a closed node's program prove, up to its ceiling."""
        if not _finite(bounds):
            return float("-inf")
        (milp,) = self._programs([node], bounds)
        if milp is None:
            return node.ceiling
        return float("-inf") if node.duals is None else min(proven_bound(milp, node.duals), node.ceiling)

    def _programs(self, nodes: Sequence[Node], bounds: Bounds) -> Iterator[Milp | None]:
        """The program of each node; None where bounds exclude each other."""
        low, high = self._sides(bounds, len(nodes))
        line = relax(low, np.maximum(low, high))
        box = [side[0].reshape(len(side[0]), -1) for side in (bounds.lower, bounds.upper)]
        for k, node in enumerate(nodes):
            inputs = [side[k if len(side) > 1 else 0] for side in box]
            lines = line.upper_slope[k], line.upper_offset[k]
            crossed = (low[k] > high[k]).any()
            yield None if crossed else self._program(node.condition, inputs, low[k], high[k], *lines)

    def _sides(self, bounds: Bounds, count: int) -> list[np.ndarray]:
        """Lower and upper bounds of all z, (K, N) each."""
        found = []
        for side in (bounds.lower, bounds.upper):
            parts = [side[self.network.relu_source(relu)] for relu in self.layered.relus]
            found.append(np.concatenate([np.broadcast_to(p, (count, *p.shape[1:])) for p in parts], axis=1))
        return found

    def _by_layer(self, values: np.ndarray) -> dict[int, np.ndarray]:
        """Values (N,) by ReLU node."""
        layered = self.layered
        return {relu: values[layered.layer(k)].astype(np.float32) for k, relu in enumerate(layered.relus)}

    def _program(
        self,
        condition: int,
        box: list[np.ndarray],
        low: np.ndarray,
        high: np.ndarray,
        slope: np.ndarray,
        offset: np.ndarray,
    ) -> Milp:
        data = self.matrix.data.copy()
        data[self.places] = -slope
        matrix = sp.csr_array((data, self.matrix.indices, self.matrix.indptr), shape=self.matrix.shape)
        units = len(low)
        infinite = np.full(units, np.inf)
        return Milp(
            self.objectives[condition],
            float(self.offsets[condition]),
            matrix,
            np.concatenate([self.affine[0], np.zeros(units), -infinite]),
            np.concatenate([self.affine[1], infinite, offset]),
            np.concatenate([box[0], low, np.zeros(units)]),
            np.concatenate([box[1], high, np.maximum(high, 0.0)]),
            np.zeros(matrix.shape[1], bool),
        )


def _finite(bounds: Bounds) -> bool:
    """Whether all bounds are numbers, whatever their batches."""
    return all(bool(np.isfinite(side).all()) for side in (*bounds.lower, *bounds.upper))
