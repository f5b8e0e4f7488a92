"""Bounds of every value in a network, for a batch of input boxes: the common answer of all presolve methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from mipverify.network import Affine, Input, Network, Relu
from mipverify.network.arrays import array_namespace
from mipverify.network.operators import Array, parameter_like
from mipverify.proof.deployed import deviation
from mipverify.proof.derivation import Assumed, Derivation, Pre, Selected
from mipverify.proof.facts import SEAL, Assumption, Scope, Sealed, UnitBounds
from mipverify.proof.on_demand import ByNode, InOrder
from mipverify.proof.relaxation import Relaxation, relax
from mipverify.proof.rounding import floor
from mipverify.specification.sets import InputSet


@dataclass(frozen=True, eq=False)
class Intervals:
    """An interval for every node, whoever made it: what searches work on. Only `Bounds` are proven.

    lower, upper: one array (B, *shape of node i) for each node, the input box first; the batch axis may be 1 where all
    entries share an array. inputs: the set whose parts in their boxes the input sets are; None where they are all of
    these boxes.
    """

    network: Network
    lower: tuple[Array, ...]
    upper: tuple[Array, ...]
    inputs: InputSet | None = None

    @property
    def batch(self) -> int:
        return max(int(x.shape[0]) for x in self.lower)

    @property
    def over_boxes(self) -> bool:
        """Whether nothing is cut out of the boxes of the input sets."""
        return self.inputs is None or self.inputs.is_box

    @property
    def like(self) -> Array:
        """Any of the arrays: for dtype and namespace."""
        return self.lower[0]

    def unstable(self, node: int) -> Array:
        """Mask (B, *shape) of the units of a ReLU (or of its pre-activation) whose sign is not decided."""
        source = getattr(self.network.nodes[node], "source", node)
        return (self.lower[source] < 0) & (self.upper[source] > 0)

    def unstable_counts(self) -> np.ndarray:
        """Undecided units of each ReLU node, (B, number of ReLU nodes)."""
        counts = [np.asarray(self.unstable(node)).reshape(self.batch, -1).sum(1) for node in self.network.relus]
        return np.stack(counts, axis=1) if counts else np.zeros((self.batch, 0), dtype=int)

    def surrogate(self) -> Intervals:
        """Numpy bounds in float32, rounded to nearest: for searching, not for concluding."""
        lower, upper = (tuple(x.astype(np.float32) for x in side) for side in (self.lower, self.upper))
        return Intervals(self.network, lower, upper, self.inputs)

    def finite(self) -> Array:
        """Mask (B,): boxes for which every bound is a finite number; nothing may be concluded for the others."""
        xp = array_namespace(self.lower[0])
        good = None
        for bound in (*self.lower, *self.upper):
            here = xp.all(xp.reshape(xp.isfinite(bound), (self.batch, -1)), axis=1)
            good = here if good is None else good & here
        return good

    @cached_property
    def lines(self) -> Mapping[int, Relaxation]:
        """The linear relaxation of each ReLU node."""
        return ByNode(self.network.relus, partial(_line, self.network, self.lower, self.upper))

    def __repr__(self) -> str:
        mean = self.unstable_counts().mean(axis=0) if self.batch else []
        counts = [round(float(m), 1) for m in mean]
        return f"{type(self).__name__}(batch {self.batch}, mean unstable units by layer {counts})"


@dataclass(frozen=True, eq=False, repr=False)
class Bounds(Intervals, Sealed):
    """The fact that `lower[i] <= value of node i <= upper[i]` for each input set of a batch.

    The bounds of the nodes that ReLUs read are what methods tighten; the others are what interval arithmetic makes of
    these. scope: which input sets these are. within: bounds of one entry whose input set contains all of these.
    """

    scope: Scope = None  # type: ignore[assignment]  # always given: a field behind one with a default must have one
    within: Bounds | None = None

    @property
    def batch(self) -> int:
        """How many entries: one for each assumption, of which some may share their arrays."""
        return super().batch if self.scope.assumptions is None else len(self.scope.assumptions)

    def select(self, samples: np.ndarray) -> Bounds:
        """The bounds of some of the entries, by index array."""
        if not np.issubdtype(np.asarray(samples).dtype, np.integer):
            raise ValueError("entries are selected by index")
        every = self.scope.assumptions
        assumptions = None if every is None else tuple(every[int(k)] for k in samples)
        lower, upper = (tuple(x[samples] if len(x) > 1 else x for x in side) for side in (self.lower, self.upper))
        if assumptions is None:
            lower, upper = ((_repeated(side[0], len(samples)), *side[1:]) for side in (lower, upper))
        scope = Scope(wider=self.around, assumptions=assumptions, whole=self.whole, seal=SEAL)
        within = self.within if self.within is None or self.within.batch == 1 else self.within.select(samples)
        how: Derivation | None = None
        if isinstance(self.derivation, Assumed):  # as if nothing had been assumed beside it
            how = self.derivation.take(samples)
        elif self.derivation is not None:
            how = Selected(self.derivation, np.asarray(samples))
        return Bounds(self.network, lower, upper, self.inputs, scope, within, seal=SEAL, derivation=how)

    def outward(self, dtype: Any) -> Bounds:
        """Numpy bounds in a lower precision, rounded outward: as sound as they were."""
        pairs = [outward(low, high, np.dtype(dtype)) for low, high in zip(self.lower, self.upper, strict=True)]
        lower, upper = (tuple(pair[side] for pair in pairs) for side in (0, 1))
        how = self.derivation  # which holds no bounds
        return Bounds(self.network, lower, upper, self.inputs, self.scope, seal=SEAL, derivation=how)

    def entry(self, k: int) -> EntryBounds:
        """The bounds of one entry's pre-activations by themselves, which outlive the batch."""

        def own(x: np.ndarray) -> np.ndarray:
            return np.array(x[k if len(x) > 1 else 0]).reshape(-1)  # a copy: a view keeps the whole batch alive

        arrays = {node: (own(self.lower[node]), own(self.upper[node])) for node in self.network.preactivations}
        how = None if self.derivation is None else (self.derivation, k)
        return EntryBounds(arrays, self.whole, self.scope.assumption(k), how, seal=SEAL)

    def units(self, node: int, units: np.ndarray) -> UnitBounds:
        """What is known of some flat entries (U,) of a node, bounds of batch 1."""
        low, high = (side[node].reshape(-1)[units] for side in (self.lower, self.upper))
        how = None if self.derivation is None else Pre(self.derivation, node, units)
        return UnitBounds(self.scope, node, None, units, low, high, seal=SEAL, derivation=how)

    @property
    def around(self) -> frozenset[bytes]:
        """Keys of the scopes of one box, with nothing assumed, whose facts hold for all entries."""
        single = self.batch == 1 and self.scope.assumptions is None
        return self.scope.wider | {self.scope.key} if single else self.scope.wider

    @property
    def whole(self) -> bytes | None:
        """Key of the scope of one box that all entries are, but for their assumptions; None where there is none."""
        return self.scope.key if self.batch == 1 and self.scope.assumptions is None else self.scope.whole

    @cached_property
    def magnitudes(self) -> Sequence[Array]:
        """Upper bounds of the values that an error in a coefficient is multiplied with, for each node (B, *shape).

        For an affine node this is sum |W| |source| + |bias|: the error of passing a row through it is relative to that.
        """
        if self.within is not None:
            return self.within.magnitudes
        return InOrder(len(self.network.nodes), partial(_magnitude, self.network, self.lower, self.upper))

    def deviation(self, index: int) -> Array | None:
        """By how much an affine node's value (B, *shape) may be off its expression in float32; None for nothing."""
        node = self.network.nodes[index]
        if not isinstance(node, Affine) or node.rounded is None:
            return None
        return self._deviations[index]

    @cached_property
    def _deviations(self) -> Mapping[int, Array | None]:
        if self.within is not None:
            return self.within._deviations
        return ByNode(range(len(self.network.nodes)), partial(deviation, self.network, self.lower, self.upper))

    @cached_property
    def underflow(self) -> Sequence[Array]:
        """Above the sum of all underflow errors of a row that starts at or below each node (B,).

        An entry of a row that underflows is off by an absolute amount, which the value of its node multiplies.
        """
        if self.within is not None:
            return self.within.underflow
        return InOrder(len(self.network.nodes), partial(_underflow, self.magnitudes))


def outward(lower: np.ndarray, upper: np.ndarray, dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds in another precision, rounded outward."""
    down, up, infinite = lower.astype(dtype, copy=False), upper.astype(dtype, copy=False), dtype.type(np.inf)
    if np.can_cast(lower.dtype, dtype) and np.can_cast(upper.dtype, dtype):
        return down, up
    down = np.where(down > lower, np.nextafter(down, -infinite), down)
    return down, np.where(up < upper, np.nextafter(up, infinite), up)


# Functions of arrays and not of bounds: what hangs on bounds must not keep them alive in a circle.


def _line(network: Network, lower: Sequence[Array], upper: Sequence[Array], node: int) -> Relaxation:
    source = network.relu_source(node)
    return relax(lower[source], upper[source])


def _size(lower: Array, upper: Array) -> Array:
    xp = array_namespace(lower)
    return xp.maximum(xp.abs(lower), xp.abs(upper))


def _magnitude(network: Network, lower: Sequence[Array], upper: Sequence[Array], index: int, _: Array | None) -> Array:
    node = network.nodes[index]
    if isinstance(node, (Input, Relu)):
        own = index if isinstance(node, Input) else node.source
        return _size(lower[own], upper[own])
    xp = array_namespace(lower[0])
    total = xp.zeros_like(lower[index])
    tiny = float(xp.finfo(total.dtype).smallest_normal)
    for term in node.terms:
        source = _size(lower[term.source], upper[term.source])
        part = term.operator.apply_abs(source.reshape(total.shape[0], *term.operator.in_shape))
        total = total + part.reshape(total.shape)
        # An underflow is relative to nothing: the error of passing a row through must not vanish with it.
        whole = xp.sum(xp.reshape(source, (total.shape[0], -1)), axis=1)
        total = total + tiny * (1 + whole.reshape(-1, *[1] * (total.ndim - 1)))
    if node.bias is not None:
        total = total + xp.abs(parameter_like(node.bias, total))[None]
    off = deviation(network, lower, upper, index)
    return total if off is None else total + off


def _underflow(magnitudes: Sequence[Array], index: int, before: Array | None) -> Array:
    values = magnitudes[index]
    xp = array_namespace(values)
    here = floor(values) * (1 + xp.sum(xp.reshape(values, (values.shape[0], -1)), axis=1))
    return here if before is None else here + before


@dataclass(frozen=True, eq=False)
class EntryBounds(Sealed):
    """Bounds of one entry of a batch: flat lower and upper arrays by pre-activation, which hold where `assumption`
    does in all of the box of the scope `whole`. found: the derivation of the batch, and which entry; None where none is
    recorded."""

    arrays: Mapping[int, tuple[np.ndarray, np.ndarray]]
    whole: bytes | None
    assumption: Assumption
    found: tuple[Derivation, int] | None = None

    @property
    def empty(self) -> bool:
        """Whether a lower bound lies above its upper one: no input meets the assumption."""
        return any(bool((low > high).any()) for low, high in self.arrays.values())

    @property
    def bytes(self) -> int:
        """Size of its arrays."""
        return sum(low.nbytes + high.nbytes for low, high in self.arrays.values())


def prefix(bounds: Bounds, node: int) -> Bounds:
    """The same facts of the part of a network that one of its nodes depends on, with that node as output."""
    part = Network(bounds.network.nodes[: node + 1], node)
    arrays = bounds.lower[: node + 1], bounds.upper[: node + 1]
    return Bounds(part, *arrays, bounds.inputs, bounds.scope, seal=SEAL, derivation=bounds.derivation)


def _repeated(x: np.ndarray, count: int) -> np.ndarray:
    """An array of the input with an entry for each of `count`, so that the batch has as many as it says."""
    return x if len(x) == count else np.broadcast_to(x, (count, *x.shape[1:]))


def assume(bounds: Bounds, assumptions: Sequence[Assumption], own: Sequence[EntryBounds | None]) -> Bounds:
    """Bounds (batch 1) under assumptions (K,): one entry each, where split units have the sign of their phase.

    own: for some entries bounds that were proven under an assumption which these imply; they take the place of the
    common ones. Raises ValueError where they do not belong to it.
    """
    if bounds.batch != 1 or bounds.scope.assumptions is not None:
        raise ValueError("assumptions are made within bounds of one input set, under which nothing is assumed yet")
    for assumption, entry in zip(assumptions, own, strict=True):
        if entry is not None and not (entry.whole in bounds.around and assumption.implies(entry.assumption)):
            raise ValueError("bounds of an entry do not hold where its assumption does")
    network, count = bounds.network, len(assumptions)
    lower, upper = list(bounds.lower), list(bounds.upper)
    by_layer = splits_by_layer(assumptions)
    touched = {network.relu_source(relu) for relu in by_layer}
    for source in touched.union(*(entry.arrays.keys() for entry in own if entry is not None)):
        common = lower[source].reshape(-1), upper[source].reshape(-1)
        pairs = [common if entry is None else entry.arrays.get(source, common) for entry in own]
        lower[source], upper[source] = (np.stack([pair[side] for pair in pairs]) for side in (0, 1))
    for relu, (places, units, signs) in by_layer.items():
        low, high = (side[network.relu_source(relu)] for side in (lower, upper))
        active = signs > 0
        on, off = (places[active], units[active]), (places[~active], units[~active])
        low[on], high[off] = np.maximum(low[on], 0.0), np.minimum(high[off], 0.0)
    for source, node in enumerate(network.nodes):
        if lower[source] is not bounds.lower[source]:
            lower[source], upper[source] = (s[source].reshape(count, *node.shape) for s in (lower, upper))
    scope = Scope(wider=bounds.around, assumptions=tuple(assumptions), whole=bounds.scope.key, seal=SEAL)
    how = None
    if bounds.derivation is not None and all(entry is None or entry.found is not None for entry in own):
        splits = tuple(assumption.splits for assumption in assumptions)
        found = tuple(None if entry is None else entry.found for entry in own)
        how = Assumed(bounds.derivation, splits, found if any(found) else ())
    return Bounds(network, tuple(lower), tuple(upper), bounds.inputs, scope, bounds, seal=SEAL, derivation=how)


def splits_by_layer(assumptions: Sequence[Assumption]) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """By ReLU node all splits of some assumptions: the place among these, the unit and the sign, (S,) each."""
    splits = np.array([(relu, k, unit, sign) for k, a in enumerate(assumptions) for relu, unit, sign in a.splits])
    found = {}
    for relu in np.unique(splits[:, 0]) if len(splits) else ():
        _, places, units, signs = splits[splits[:, 0] == relu].T
        found[int(relu)] = places, units, signs
    return found
