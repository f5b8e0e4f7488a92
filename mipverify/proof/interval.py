"""Interval arithmetic through the network: the cheapest bounds, and what every other method starts from."""

from __future__ import annotations

from collections.abc import Mapping

from array_api_compat import array_namespace

from mipverify.network import Affine, Input, Network, Relu
from mipverify.network.graph import affine_value
from mipverify.network.operators import Array, parameter_like
from mipverify.proof.bounds import Bounds
from mipverify.proof.rounding import ball, floor, gamma, rounding_terms
from mipverify.specification.regions import Region


def interval(
    network: Network,
    lower: Array,
    upper: Array,
    known: Mapping[int, tuple[Array, Array]] | None = None,
    region: Region | None = None,
    earlier: Bounds | None = None,
    first: int = 0,
) -> Bounds:
    """Bounds of every node by interval arithmetic [Tjeng et al. 2019, section 4.2], sound in exact arithmetic.

    lower, upper: the input boxes (B, *input_shape). known: proven bounds of some nodes, which are intersected with.
    region: passed on to methods that use more than the box. earlier, first: bounds of the nodes before `first`, made by
    the same call, which are taken over.
    """
    lows: list[Array] = [] if earlier is None else list(earlier.lower[:first])
    highs: list[Array] = [] if earlier is None else list(earlier.upper[:first])
    xp = array_namespace(lower)
    for index, node in enumerate(network.nodes[len(lows) :], len(lows)):
        if isinstance(node, Input):
            low, high = xp.reshape(lower, (-1, *node.shape)), xp.reshape(upper, (-1, *node.shape))
        elif isinstance(node, Relu):
            low, high = xp.clip(lows[node.source], min=0), xp.clip(highs[node.source], min=0)
        else:
            low, high = affine_interval(node, lows, highs)
        if known is not None and index in known:
            low, high = xp.maximum(low, known[index][0]), xp.minimum(high, known[index][1])
        lows.append(low)
        highs.append(high)
    return Bounds(network, tuple(lows), tuple(highs), region)


def affine_interval(node: Affine, lows: list[Array], highs: list[Array]) -> tuple[Array, Array]:
    """Interval of one affine node from those of earlier nodes, rounding errors included."""
    xp = array_namespace(lows[0])
    if len(node.terms) == 1 and node.bias is None and node.uncertainty is None:
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
    if node.bias is not None:
        radius = radius + error * xp.abs(parameter_like(node.bias, like))[None]
    if node.uncertainty is not None:
        radius = radius + parameter_like(node.uncertainty, like)[None]
    radius = radius * (1 + 2 * error) + 4 * gamma(1, like) * xp.abs(center) + floor(like)
    return center - radius, center + radius
