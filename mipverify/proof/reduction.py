"""Networks reduced to their unstable ReLUs: within proven bounds everything else is affine, and can be multiplied out.

Of the thousands of units of a convolutional network often a hundred are unstable. Bounds of subproblems in which
further units are fixed then cost a few small dense products instead of passes through all layers. The rounding errors
of multiplying out become an uncertainty of the rows, so that bounds of the reduced network hold for the original.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mipverify.errors import Stopped
from mipverify.network import Affine, Input, Network, Node, Relu, Term
from mipverify.network.operators import Dense, Index
from mipverify.proof.backward import Relaxed, pass_back
from mipverify.proof.bounds import Bounds
from mipverify.proof.interval import interval
from mipverify.proof.parts import never, row_chunks
from mipverify.proof.relaxation import Relaxation
from mipverify.proof.rounding import SLACK
from mipverify.proof.rows import unit_rows


@dataclass
class _Growing:
    """The reduced network so far. blocks: (its ReLU node, original ReLU node, units) of each layer."""

    size: int
    nodes: list[Node] = field(default_factory=list)
    blocks: list[tuple[int, int, np.ndarray]] = field(default_factory=list)

    def everything(self) -> int:
        """The node that holds the input and all unstable post-activations so far, one after the other."""
        if not self.blocks:
            return 0
        width = self.size + sum(len(units) for _, _, units in self.blocks)
        terms, begin = [self._term(0, self.size, 0, width)], self.size
        for node, _, units in self.blocks:
            terms.append(self._term(node, len(units), begin, width))
            begin += len(units)
        self.nodes.append(Affine((width,), tuple(terms)))
        return len(self.nodes) - 1

    def originals(self) -> list[tuple[int, np.ndarray]]:
        """The original ReLU node and the units of each layer."""
        return [(original, units) for _, original, units in self.blocks]

    def _term(self, node: int, size: int, begin: int, width: int) -> Term:
        indices = np.full(width, -1)
        indices[begin : begin + size] = np.arange(size)
        return Term(node, Index(indices, self.nodes[node].shape, (width,)))

    def affine(self, rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> int:
        """A node with these coefficients of `everything`, constants and uncertainties."""
        coefficients, constant, doubt = rows
        term = Term(self.everything(), Dense(coefficients))
        self.nodes.append(Affine((len(constant),), (term,), constant, doubt))
        return len(self.nodes) - 1


@dataclass(frozen=True, eq=False)
class Reduced:
    """Bounds of the reduced network. layers: (its pre-activation, original pre-activation, units) of each layer."""

    bounds: Bounds
    layers: tuple[tuple[int, int, np.ndarray], ...]

    def known(self, tight: Bounds, original: Bounds) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """What bounds of the reduced network mean for the original one: its bounds, tightened where these are."""
        found = {}
        for reduced, source, units in self.layers:
            low, high = original.lower[source].copy(), original.upper[source].copy()
            low.reshape(-1)[units] = np.maximum(low.reshape(-1)[units], tight.lower[reduced].reshape(-1))
            high.reshape(-1)[units] = np.minimum(high.reshape(-1)[units], tight.upper[reduced].reshape(-1))
            found[source] = (low, high)
        return found


def entries(bounds: Bounds) -> int:
    """How many coefficients the reduced network would have (bounds of batch 1)."""
    width, found = bounds.network.input_size, 0
    for count in (*bounds.unstable_counts()[0].tolist(), bounds.network.output_size):
        found, width = found + count * width, width + count
    return int(found)


def reduce(bounds: Bounds, stop: Callable[[], bool] = never) -> Reduced:
    """The reduced network over the same box (batch 1): same input, same output, unstable ReLUs only.

    Raises Stopped once `stop` returns true.
    """
    network, exact = bounds.network, Exact(bounds)
    growing = _Growing(network.input_size, [Input(network.input_shape)])
    known = {}
    for node in network.relus:
        units = np.flatnonzero(np.asarray(bounds.unstable(node)).reshape(-1))
        if not len(units):
            continue
        source = network.relu_source(node)
        reduced = growing.affine(affine_rows(exact, source, units, growing.originals(), stop))
        known[reduced] = (bounds.lower[source].reshape(1, -1)[:, units], bounds.upper[source].reshape(1, -1)[:, units])
        growing.nodes.append(Relu((len(units),), reduced))
        growing.blocks.append((len(growing.nodes) - 1, node, units))
    outputs = np.arange(network.output_size)
    output = growing.affine(affine_rows(exact, network.output, outputs, growing.originals(), stop))
    small = Network(tuple(growing.nodes), output, input_name=network.input_name)
    layers = tuple((small.relu_source(node), network.relu_source(relu), units) for node, relu, units in growing.blocks)
    return Reduced(interval(small, bounds.lower[0], bounds.upper[0], known, bounds.region), layers)


class Exact(Relaxed):
    """A network whose unstable ReLUs end the way back: what they are met with is kept, and goes no further."""

    @cached_property
    def lines(self) -> dict[int, Relaxation]:
        found = {}
        for node in self.network.relus:
            source = self.network.relu_source(node)
            active = np.where(self.bounds.lower[source] >= 0, 1.0, 0.0)
            found[node] = Relaxation(active, active, np.zeros_like(active))
        return found


def affine_rows(
    exact: Exact,
    node: int,
    units: np.ndarray,
    blocks: Sequence[tuple[int, np.ndarray]],
    stop: Callable[[], bool] = never,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries `units` of a node as rows over the input and over units of some ReLU nodes, one after the other.

    blocks: the ReLU nodes and their units. Coefficients (U, width), constants (U,), and the errors of both (U,).
    Raises Stopped once `stop` returns true.
    """
    width = exact.network.input_size + sum(len(own) for _, own in blocks)
    found = np.zeros((len(units), width)), np.empty(len(units)), np.empty(len(units))
    for part in row_chunks(exact.network, node, len(units)):
        if stop():
            raise Stopped
        start = unit_rows(exact.network, node, units[part], None, exact.bounds.lower[0])
        reached = pass_back(exact, start, keep=True)
        count, begin = part.stop - part.start, exact.network.input_size
        found[0][part, :begin] = reached.coefficients.reshape(count, -1)
        for original, own in blocks:
            if original in reached.passed:
                found[0][part, begin : begin + len(own)] = reached.passed[original].reshape(count, -1)[:, own]
            begin += len(own)
        found[1][part], found[2][part] = reached.constant, SLACK * np.asarray(reached.error)
    return found
