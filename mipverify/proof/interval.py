"""Interval arithmetic through the network: the cheapest bounds, and what every other method starts from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mipverify.network import Affine, Input, Network, Relu
from mipverify.network.arrays import array_namespace
from mipverify.network.graph import affine_value
from mipverify.network.operators import Array, parameter_like
from mipverify.proof.bounds import Bounds, outward
from mipverify.proof.box_tree import PartsOf
from mipverify.proof.deployed import deviation
from mipverify.proof.derivation import Derivation, Started, Tightened
from mipverify.proof.enclosure import Enclosure
from mipverify.proof.facts import SEAL, Scope, UnitBounds
from mipverify.proof.images import unit_bounds
from mipverify.proof.input_minimum import lies_in
from mipverify.proof.rounding import ball, floor, gamma, rounding_terms
from mipverify.proof.trimming import trimmed
from mipverify.specification.sets import InputSet


def interval(
    network: Network, lower: Array, upper: Array, inputs: InputSet | None = None, *, record: bool = False
) -> Bounds:
    """Bounds of every node by interval arithmetic [Tjeng et al. 2019, section 4.2], sound in exact arithmetic.

    lower, upper: the input boxes (B, *input_shape). inputs: where the input sets are no more than its parts in these,
    for methods that use more than the box. record: whether what is made of these bounds is to have a derivation.
    """
    return _interval(network, lower, upper, inputs, Scope(seal=SEAL), Started() if record else None)


def interval_over(network: Network, inputs: InputSet, *, record: bool = False) -> Bounds:
    """The same over one input set: batch 1."""
    shape = (1, *network.input_shape)
    lower, upper = (side.reshape(shape) for side in inputs.box.enclosure)
    return interval(network, lower, upper, inputs, record=record)


def interval_inside(root: Bounds, lower: np.ndarray, upper: np.ndarray) -> Bounds:
    """The same for boxes inside of the one of `root` (batch 1), whose facts hold in them, too.

    Raises ValueError where a box is not.
    """
    if root.batch != 1 or not ((lower >= root.lower[0]).all() and (upper <= root.upper[0]).all()):
        raise ValueError("a box lies outside of the input set")
    how = None if root.derivation is None else PartsOf(root.derivation)
    return _interval(root.network, lower, upper, root.inputs, Scope(wider=root.around, seal=SEAL), how)


def interval_of_images(network: Network, images: Enclosure) -> Bounds:
    """The same for the inputs of each cell of transforms, with what their planes say of the pre-activations."""
    shape = (-1, *network.input_shape)
    bounds = _interval(network, images.lower.reshape(shape), images.upper.reshape(shape), None, images.scope)
    return tighten(bounds, unit_bounds(bounds, images))


def _interval(
    network: Network,
    lower: Array,
    upper: Array,
    inputs: InputSet | None,
    scope: Scope,
    how: Derivation | None = None,
) -> Bounds:
    xp = array_namespace(lower)
    shape = network.input_shape
    if inputs is not None and inputs.size != network.input_size:
        raise ValueError(f"a set of {inputs.size} inputs is none of a network of {network.input_size}")
    lows, highs = [xp.reshape(lower, (-1, *shape))], [xp.reshape(upper, (-1, *shape))]
    _propagate(network, lows, highs, 1)
    return Bounds(network, tuple(lows), tuple(highs), inputs, scope, seal=SEAL, derivation=how)


def tighten(bounds: Bounds, found: Iterable[UnitBounds], *, further: bool = True) -> Bounds:
    """Bounds with all that was found of single entries, and what interval arithmetic makes of it for later nodes.

    further: without it, later nodes keep the bounds they have. Where derivations are recorded, facts without one are
    left out, and of the others what others exceed. Raises ValueError where a fact is about other sets.
    """
    lows, highs = list(bounds.lower), list(bounds.upper)
    first, fresh, used = len(lows), set(), list[_Used]()
    for fact in found:
        if bounds.derivation is not None and fact.derivation is None:
            continue
        if not bounds.scope.has(fact.scope):
            raise ValueError("a fact about other input sets does not tighten these bounds")
        if fact.samples is None and bounds.batch > 1 and fact.scope.key not in bounds.scope.wider:
            raise ValueError("a fact about one of several entries says of which")
        node, size = fact.node, math.prod(bounds.network.nodes[fact.node].shape)
        count = bounds.batch if fact.samples is not None else max(1, len(lows[node]))
        for side in (lows, highs):
            if node not in fresh or len(side[node]) < count:
                side[node] = np.array(np.broadcast_to(side[node].reshape(-1, size), (count, size)), order="C")
        fresh.add(node)
        entries = np.arange(len(lows[node]))[:, None] if fact.samples is None else fact.samples
        at = entries * size + fact.units  # an entry may be there more than once
        # A bound that is no number tells nothing.
        low, high = outward(fact.lower, fact.upper, lows[node].dtype)
        np.fmax.at(lows[node].reshape(-1), at.reshape(-1), np.broadcast_to(low, at.shape).reshape(-1))
        np.fmin.at(highs[node].reshape(-1), at.reshape(-1), np.broadcast_to(high, at.shape).reshape(-1))
        if fact.derivation is not None:
            used.append(_Used(fact.derivation, node, at, low, high))
        first = min(first, node)
    for node in fresh:
        for side in (lows, highs):
            side[node] = side[node].reshape(-1, *bounds.network.nodes[node].shape)
    if further:
        _propagate(bounds.network, lows, highs, first + 1)
    how = bounds.derivation
    if how is not None and used:
        how = Tightened(how, _best(used))
    own = bounds.network, tuple(lows), tuple(highs), bounds.inputs, bounds.scope, bounds.within
    return Bounds(*own, seal=SEAL, derivation=how)


@dataclass(frozen=True, eq=False)
class _Used:
    """What was found of entries `at` of a node, flat in its batch, (R,) or (B, R): low, high (R,), and how."""

    how: Derivation
    node: int
    at: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _best(found: Sequence[_Used]) -> tuple[Derivation, ...]:
    """How entries were found, without the rows that others exceed.

    Others that were recorded: intervals may be as tight here and not elsewhere, where the network has other nodes.
    """
    highest: dict[tuple[int, int], np.ndarray] = {}  # by node and sign: of lower bounds, and of negated upper ones
    sides = [(fact, sign, sign * np.asarray(own)) for fact in found for sign, own in ((1, fact.low), (-1, fact.high))]
    for fact, sign, own in sides:
        size = 1 + int(fact.at.max(initial=-1))
        best = highest.setdefault((fact.node, sign), np.zeros(0))
        if len(best) < size:
            best = highest[fact.node, sign] = np.concatenate([best, np.full(size - len(best), -np.inf)])
        np.fmax.at(best, fact.at.reshape(-1), np.broadcast_to(own, fact.at.shape).reshape(-1))
    needed = [np.zeros(len(fact.low), bool) for fact in found]
    for k, (fact, sign, own) in enumerate(sides):
        reached = np.isfinite(own) & (own == highest[fact.node, sign][fact.at])
        needed[k // 2] |= reached.reshape(-1, len(own)).any(axis=0)  # of any entry, where it is of all alike
    every = (trimmed(fact.how, rows) for fact, rows in zip(found, needed, strict=True))
    return tuple(how for how in every if how is not None)


def narrowed(network: Network, inputs: InputSet, *around: Bounds) -> Bounds:
    """Interval bounds over one input set, with what is known over some around it.

    network: may differ from theirs in later nodes. Where an input set is not seen to be one around, or something is
    assumed there, nothing is taken over.
    """
    found = interval_over(network, inputs)
    lower, upper = found.lower[0], found.upper[0]
    facts = []
    for outer in around:
        inside = outer.batch == 1 and outer.scope.assumptions is None and outer.lower[0].shape == lower.shape
        if not inside or not bool((lower >= outer.lower[0]).all() and (upper <= outer.upper[0]).all()):
            continue
        if not lies_in(inputs, outer.inputs):
            continue
        for node in network.preactivations:
            if network.nodes[: node + 1] != outer.network.nodes[: node + 1]:
                break  # nodes are compared by identity
            low, high = (side[node].reshape(-1) for side in (outer.lower, outer.upper))
            facts.append(UnitBounds(found.scope, node, None, np.arange(len(low)), low, high, seal=SEAL))
    return tighten(found, facts) if facts else found


def _propagate(network: Network, lows: list[Array], highs: list[Array], first: int) -> None:
    """Intervals of all nodes from `first` on, appended or intersected with those there are, in place."""
    for index, node in enumerate(network.nodes[first:], first):
        if isinstance(node, Relu):
            xp = array_namespace(lows[0])
            low, high = xp.clip(lows[node.source], min=0), xp.clip(highs[node.source], min=0)
        else:
            assert not isinstance(node, Input)
            low, high = affine_interval(node, lows, highs, deviation(network, lows, highs, index))
        if index < len(lows):
            xp = array_namespace(low)
            lows[index], highs[index] = xp.maximum(low, lows[index]), xp.minimum(high, highs[index])
        else:
            lows.append(low)
            highs.append(high)


def affine_interval(
    node: Affine, lows: list[Array], highs: list[Array], off: Array | None = None
) -> tuple[Array, Array]:
    """Interval of one affine node from those of earlier nodes, rounding errors included.

    off: by how much its value may differ from its expression, beside its error bound.
    """
    xp = array_namespace(lows[0])
    if len(node.terms) == 1 and node.bias is None and node.error_bound is None and off is None:
        operator = node.terms[0].operator
        if operator.terms == 1 and not operator.parameters():  # data movement only: exact
            return affine_value(node, lows), affine_value(node, highs)
    centers: dict[int, Array] = {}
    radii: dict[int, Array] = {}
    for term in node.terms:
        if term.source not in centers:
            centers[term.source], radii[term.source] = ball(lows[term.source], highs[term.source])
    like = lows[0]
    error = gamma(rounding_terms(node), like)
    center = affine_value(node, [centers.get(i, x) for i, x in enumerate(lows)])
    radius = xp.zeros_like(center)
    for term in node.terms:
        spread = radii[term.source] + error * xp.abs(centers[term.source])
        part = term.operator.apply_abs(spread.reshape(spread.shape[0], *term.operator.in_shape))
        radius = radius + part.reshape(spread.shape[0], *node.shape)
        # A weight below this precision's range is off by an absolute amount, which the source's value multiplies.
        largest = xp.max((xp.abs(centers[term.source]) + radii[term.source]).reshape(spread.shape[0], -1), axis=1)
        radius = radius + floor(like) * largest.reshape(-1, *[1] * len(node.shape))
    if node.bias is not None:
        radius = radius + error * xp.abs(parameter_like(node.bias, like))[None]
    if node.error_bound is not None:
        radius = radius + parameter_like(node.error_bound, like)[None]
    if off is not None:
        radius = radius + off
    radius = radius * (1 + 2 * error) + 4 * gamma(1, like) * xp.abs(center) + floor(like)
    return center - radius, center + radius
