"""What follows for a network from planes around transformed images (rule 21).

Inputs of a cell are x = middle + slopes (p - center) + e with |p - center| <= radius and |e| <= half: a zonotope, in
which pixels that move together do. So a linear function a . x is at least a . middle - |a . slopes| . radius
- |a| . half. The same form is kept through the layers: an affine node maps middle and slopes, and half by its absolute
weights; of a ReLU with bounds l < 0 < u, relu(z) - t z lies within
[0, max((1 - t) u, -t l)] for any t in [0, 1], half of which moves the middle and half of which is added to `half`
[Singh et al. 2018, Fast and effective robustness certification, with few symbols that are shared].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mipverify.network import Affine, Input, Relu
from mipverify.network.graph import affine_value
from mipverify.proof.bounds import Bounds
from mipverify.proof.deployed import deviation
from mipverify.proof.enclosure import Enclosure, Floats
from mipverify.proof.facts import SEAL, RowBounds, UnitBounds
from mipverify.proof.rounding import SLACK, floor, gamma, rounding_terms
from mipverify.proof.rows import LinearBounds


@dataclass(frozen=True, eq=False)
class _Form:
    """Values (E, *shape) with |value - middle - sum_j slopes_j (p_j - center_j)| <= half.

    slopes: (k, E, *shape). reach: sum_j radius_j |slopes_j|.
    """

    middle: Floats
    slopes: Floats
    half: Floats
    reach: Floats

    @classmethod
    def of(cls, middle: Floats, slopes: Floats, half: Floats, radius: Floats) -> _Form:
        """With what follows of these for `reach`. radius: (k, E)."""
        shape = (*radius.shape, *[1] * (middle.ndim - 1))
        reach = (np.abs(slopes) * radius.reshape(shape)).sum(axis=0)
        return cls(middle, slopes, half, reach * (1 + gamma(2 * len(slopes) + 2, reach)))

    def ends(self) -> tuple[Floats, Floats]:
        """Lower and upper bounds of the values, rounded outward."""
        spread = (self.reach + self.half) * (1 + gamma(4, self.half))
        spread = spread + gamma(4, self.half) * np.abs(self.middle) + floor(self.half)
        return self.middle - spread, self.middle + spread


def unit_bounds(bounds: Bounds, images: Enclosure) -> Iterator[UnitBounds]:
    """Bounds of all pre-activations over the inputs of each cell.

    bounds: of all nodes there, by which it is known how far values may be from their expressions. Raises ValueError
    where they are about other inputs.
    """
    network = bounds.network
    if bounds.scope.key != images.scope.key:
        raise ValueError("the bounds are about other inputs than those of these cells")
    if images.transforms.size != network.input_size:
        raise ValueError(f"images of {images.transforms.size} values are no inputs of {network.input_size}")
    count, wanted = len(images), set(network.preactivations) | {network.output}
    radius = np.moveaxis(images.radius, 1, 0)
    forms: dict[int, _Form] = {}
    for index, node in enumerate(network.nodes):
        if isinstance(node, Input):
            shape = (count, *network.input_shape)
            slopes = np.moveaxis(images.slopes, 2, 0).reshape(-1, *shape)
            forms[index] = _Form.of(images.middle.reshape(shape), slopes, images.half.reshape(shape), radius)
        elif isinstance(node, Relu):
            forms[index] = _through_relu(forms[node.source], radius)
        else:
            assert isinstance(node, Affine)
            off = deviation(network, bounds.lower, bounds.upper, index)
            forms[index] = _through_affine(node, forms, radius, 0.0 if off is None else np.asarray(off, np.float64))
        if index in wanted:
            lower, upper = (side.reshape(-1) for side in forms[index].ends())
            entries, units = np.divmod(np.arange(len(lower)), math.prod(node.shape))
            yield UnitBounds(images.scope, index, entries, units, lower, upper, seal=SEAL)


def _through_affine(node: Affine, forms: dict[int, _Form], radius: Floats, off: Floats | float) -> _Form:
    """Of an affine node. What its sums are off by is relative to the sizes of what they add up.

    off: by how much its value may differ from its expression, beside its error bound.
    """
    count = radius.shape[1]
    sources = {term.source for term in node.terms}
    like = forms[0].middle
    values = [forms[i].middle if i in sources else like for i in range(max(sources, default=0) + 1)]
    middle = np.array(affine_value(node, values), np.float64)
    error = gamma(rounding_terms(node) + 4, middle)
    slopes, half = np.zeros((len(radius), *middle.shape)), np.zeros_like(middle)
    tail = [1] * len(node.shape)
    for term in node.terms:
        source, operator = forms[term.source], term.operator
        shape = (-1, *operator.in_shape)
        slopes += np.asarray(operator.apply(source.slopes.reshape(shape))).reshape(slopes.shape)
        size = np.abs(source.middle) + source.reach + source.half
        spread = source.half + error * size
        half += np.asarray(operator.apply_abs(spread.reshape(shape))).reshape(half.shape)
        # Weights and values below this precision's range are off by absolute amounts.
        half += floor(middle) * (1 + size.reshape(count, -1).sum(axis=1).reshape(count, *tail))
    half = half * (1 + 2 * error) + error * np.abs(middle)
    if node.bias is not None:
        half = half + error * np.abs(np.asarray(node.bias, np.float64))[None]
    if node.error_bound is not None:
        half = half + np.asarray(node.error_bound, np.float64)[None] * (1 + error)
    half = half + off * (1 + error)
    return _Form.of(middle, slopes, half, radius)


def _through_relu(source: _Form, radius: Floats) -> _Form:
    """Of a ReLU: the line between its ends, half of what lies above it to either side."""
    lower, upper = source.ends()
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(lower >= 0, 1.0, np.where(upper <= 0, 0.0, upper / (upper - lower)))
    slope = np.clip(np.nan_to_num(slope, nan=1.0), 0.0, 1.0)
    above = np.where(lower >= 0, 0.0, np.maximum((1 - slope) * np.maximum(upper, 0), -slope * lower))
    error = gamma(8, above)
    middle = slope * source.middle + 0.5 * above
    half = slope * source.half + 0.5 * above
    # A unit that is active keeps its values as they are.
    off = error * (np.abs(middle) + source.reach + source.half + above) + floor(above) * (1 + np.abs(source.middle))
    half = np.where(lower >= 0, source.half, half + off)
    return _Form.of(middle, slope * source.slopes, half, radius)


def over_images(linear: LinearBounds, images: Enclosure) -> RowBounds:
    """The minimum of each row over the inputs of its cell, rounded down: between planes or in the box, what is more.

    Raises ValueError where the rows are not about these inputs.
    """
    if linear.bounds.scope.key != images.scope.key:
        raise ValueError("the rows are about other inputs than those of these cells")
    a = np.asarray(linear.coefficients, np.float64).reshape(len(linear.coefficients), -1)
    entries = np.arange(len(a)) if linear.samples is None else np.asarray(linear.samples)
    if len(images) == 1:
        entries = np.zeros(len(a), np.intp)
    positive, negative = np.maximum(a, 0), np.minimum(a, 0)
    boxed = (positive * images.lower[entries] + negative * images.upper[entries]).sum(axis=1)
    middle, half, slopes, reach = (v[entries] for v in (images.middle, images.half, images.slopes, images.radius))
    size = np.abs(a)
    along = np.matmul(a[:, None], slopes)[:, 0]
    tilted = (a * middle).sum(axis=1) - (np.abs(along) * reach).sum(axis=1) - (size * half).sum(axis=1)
    ends = np.maximum(np.abs(images.lower), np.abs(images.upper))[entries]
    whole = (size * (ends + np.abs(middle) + half)).sum(axis=1)
    whole = whole + (np.matmul(size[:, None], np.abs(slopes))[:, 0] * reach).sum(axis=1)
    error = gamma(2 * a.shape[1] + 4 * slopes.shape[2] + 16, a) * (whole + np.abs(linear.constant)) + floor(a)
    value = np.maximum(boxed, tilted) + linear.constant
    lower = value - SLACK * (error + np.asarray(linear.error, np.float64)) - floor(a) * (1 + ends.sum(axis=1))
    lower = np.where(np.isfinite(lower), lower, -np.inf)
    return RowBounds(images.scope, linear.claim, linear.samples, lower, linear.key, seal=SEAL)
