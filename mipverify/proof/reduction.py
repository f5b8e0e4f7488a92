"""Networks reduced to their unstable ReLUs: within proven bounds everything else is affine, and can be multiplied out.

Of the thousands of units of a convolutional network often a hundred are unstable. Bounds of subproblems in which
further units are fixed then cost a few small dense products instead of passes through all layers. The rounding errors
of multiplying out become error bounds of the rows, so that bounds of the reduced network hold for the original.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mipverify.errors import Stopped
from mipverify.network import Affine, Input, Network, Node, Relu, Term
from mipverify.network.operators import Dense, Index
from mipverify.proof.backward import NOTHING, Errors, pass_coefficients
from mipverify.proof.bounds import Bounds
from mipverify.proof.derivation import Derivation, Layer, Lifted, Pre, ReducedTo
from mipverify.proof.facts import SEAL, Claim, RowBounds, Scope, Sealed, UnitBounds
from mipverify.proof.interval import affine_interval, interval, tighten
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
        coefficients, constant, deviation = rows
        term = Term(self.everything(), Dense(coefficients))
        self.nodes.append(Affine((len(constant),), (term,), constant, deviation))
        return len(self.nodes) - 1


@dataclass(frozen=True, eq=False)
class Reduced(Sealed):
    """Bounds of the reduced network. layers: (its pre-activation, original pre-activation, units) of each layer.

    original: the scope of the bounds that it was made of: what holds for the reduced network's units and outputs, holds
    for those of the original there.
    """

    bounds: Bounds
    layers: tuple[tuple[int, int, np.ndarray], ...]
    original: Scope
    output: int

    def lifted(self, tight: Bounds) -> list[UnitBounds]:
        """What bounds of the reduced network mean for the original one, layer by layer.

        Raises ValueError where they are of something else.
        """
        self._require(tight.scope)
        found = []
        for reduced, source, units in self.layers:
            low, high = (side[reduced].reshape(-1) for side in (tight.lower, tight.upper))
            known = None
            if tight.derivation is not None:
                known = Lifted(Pre(tight.derivation, reduced, np.arange(len(units))))
            found.append(UnitBounds(self.original, source, None, units, low, high, seal=SEAL, derivation=known))
        return found

    def lifted_rows(self, found: RowBounds) -> RowBounds:
        """What bounds of rows of the reduced network's outputs mean for the original one.

        Raises ValueError where they are of something else.
        """
        self._require(found.scope)
        claim = found.claim
        if claim is None or claim.node != self.bounds.network.output:
            raise ValueError("the rows do not stand for outputs of the reduced network")
        own = Claim(self.output, claim.units, claim.factors)
        return RowBounds(self.original, own, None, found.lower, seal=SEAL, derivation=_lifted(found.derivation))

    def lifted_outputs(self, found: UnitBounds) -> UnitBounds:
        """What bounds of single outputs of the reduced network mean for the original one; ValueError as above."""
        self._require(found.scope)
        if found.node != self.bounds.network.output:
            raise ValueError("the entries are no outputs of the reduced network")
        sides, how = (found.lower, found.upper), _lifted(found.derivation)
        return UnitBounds(self.original, self.output, None, found.units, *sides, seal=SEAL, derivation=how)

    def _require(self, scope: Scope) -> None:
        if scope.key != self.bounds.scope.key:
            raise ValueError("a fact about other input sets, or another network, is not one about the reduced network")


def entries(bounds: Bounds) -> int:
    """How many coefficients the reduced network would have (bounds of batch 1)."""
    width, found = bounds.network.input_size, 0
    for count in (*bounds.unstable_counts()[0].tolist(), bounds.network.output_size):
        found, width = found + count * width, width + count
    return int(found)


def reduce(bounds: Bounds, stop: Callable[[], bool] = never) -> Reduced:
    """The reduced network over the same box (batch 1): same input, same output, unstable ReLUs only, and those of
    `Network.inequalities`, of whose pre-activations searches use that they are not negative.

    Raises ValueError where something is assumed, Stopped once `stop` returns true.
    """
    if bounds.batch != 1 or bounds.scope.assumptions is not None:
        raise ValueError("networks are reduced within bounds of one input set, under which nothing is assumed")
    network = bounds.network
    kept = {node: kept_units(bounds, node) for node in network.relus}
    lines = exact_lines(bounds, kept)
    growing = _Growing(network.input_size, [Input(network.input_shape)])
    known: list[tuple[int, np.ndarray, np.ndarray]] = []
    for node in network.relus:
        units = kept[node]
        if not len(units):
            continue
        source = network.relu_source(node)
        reduced = growing.affine(affine_rows(bounds, lines, source, units, growing.originals(), stop))
        low, high = (side[source].reshape(-1)[units] for side in (bounds.lower, bounds.upper))
        known.append((reduced, low, high))
        growing.nodes.append(Relu((len(units),), reduced))
        growing.blocks.append((len(growing.nodes) - 1, node, units))
    output = growing.affine(
        affine_rows(bounds, lines, network.output, np.arange(network.output_size), growing.originals(), stop)
    )
    inequalities = tuple(node for node, original, _ in growing.blocks if original in network.inequalities)
    small = Network(tuple(growing.nodes), output, input_name=network.input_name, inequalities=inequalities)
    layers = tuple((small.relu_source(node), network.relu_source(relu), units) for node, relu, units in growing.blocks)
    inner = interval(small, bounds.lower[0], bounds.upper[0], bounds.inputs)
    facts = [
        UnitBounds(inner.scope, node, None, np.arange(len(low)), low, high, seal=SEAL) for node, low, high in known
    ]
    tight = tighten(inner, facts)
    if bounds.derivation is not None:
        tight = _recorded(tight, known, bounds.derivation, growing, network)
    return Reduced(tight, layers, bounds.scope, network.output, seal=SEAL)


def _recorded(
    tight: Bounds,
    known: Sequence[tuple[int, np.ndarray, np.ndarray]],
    of: Derivation,
    growing: _Growing,
    network: Network,
) -> Bounds:
    """Bounds of the reduced network with no more about its units than `known`, which is what their derivation says.

    Interval arithmetic on rows that were multiplied out may find more, which nobody finds who does not do so.
    """
    lower, upper = list(tight.lower[:1]), list(tight.upper[:1])
    own = {node: (low[None], high[None]) for node, low, high in known}
    for index, node in enumerate(tight.network.nodes[1:], 1):
        if isinstance(node, Relu):
            low, high = (np.maximum(side[node.source], 0.0) for side in (lower, upper))
        else:
            assert isinstance(node, Affine)
            low, high = own[index] if index in own else affine_interval(node, lower, upper)
        lower.append(low)
        upper.append(high)
    layers = tuple(
        Layer(node, tight.network.relu_source(node), original, network.relu_source(original), units)
        for node, original, units in growing.blocks
    )
    how = ReducedTo(of, layers, tight.network.output, network.output)
    return Bounds(tight.network, tuple(lower), tuple(upper), tight.inputs, tight.scope, seal=SEAL, derivation=how)


def _lifted(derivation: Derivation | None) -> Derivation | None:
    return None if derivation is None else Lifted(derivation)


def affine_rows(
    bounds: Bounds,
    lines: Mapping[int, Relaxation],
    node: int,
    units: np.ndarray,
    blocks: Sequence[tuple[int, np.ndarray]],
    stop: Callable[[], bool] = never,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries `units` of a node as rows over the input and over units of some ReLU nodes, one after the other.

    lines: `exact_lines`. blocks: the ReLU nodes and their units. Coefficients (U, width), constants (U,), and the
    errors of both (U,). Raises Stopped once `stop` returns true.
    """
    network = bounds.network
    coefficients = np.zeros((len(units), network.input_size + sum(len(own) for _, own in blocks)))
    constant, error = np.zeros(len(units)), np.zeros(len(units))
    for part in row_chunks(network, node, len(units)):
        if stop():
            raise Stopped
        start = unit_rows(network, node, units[part], None, bounds.like)
        errors = Errors.of(bounds, start, 0)
        reached = pass_coefficients(bounds, start, NOTHING, True, errors, lines)
        count, begin = part.stop - part.start, network.input_size
        coefficients[part, :begin] = reached.coefficients.reshape(count, -1)
        for original, own in blocks:
            if original in reached.passed:
                coefficients[part, begin : begin + len(own)] = reached.passed[original].reshape(count, -1)[:, own]
            begin += len(own)
        constant[part], error[part] = reached.constant, SLACK * np.asarray(errors.total)
    return coefficients, constant, error


def kept_units(bounds: Bounds, node: int) -> np.ndarray:
    """The units of a ReLU node that a reduced network has: unstable ones, or all that are not zero (batch 1)."""
    source = bounds.network.relu_source(node)
    kept = bounds.upper[source] > 0 if node in bounds.network.inequalities else bounds.unstable(node)
    return np.flatnonzero(np.asarray(kept).reshape(-1))


def exact_lines(bounds: Bounds, kept: Mapping[int, np.ndarray] | None = None) -> dict[int, Relaxation]:
    """Lines that pass stable ReLUs as they are and end the way back of unstable ones, with what met these kept.

    kept: by ReLU node, units whose way back ends although they may be stable.
    """
    found = {}
    for node in bounds.network.relus:
        active = np.where(bounds.lower[bounds.network.relu_source(node)] >= 0, 1.0, 0.0)
        if kept is not None:
            active.reshape(-1)[kept[node]] = 0.0
        found[node] = Relaxation(active, active, np.zeros_like(active))
    return found
