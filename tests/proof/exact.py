"""What checks of rules work with: tiny networks, their values at rational points, and arbitrary evidence."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np

from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.convolution import Conv
from mipverify.network.operators import Dense, Identity, Index, Operator
from mipverify.network.sparse_linear import SparseLinear
from mipverify.proof.backward import (
    Evidence,
)
from mipverify.proof.bounds import Bounds
from mipverify.proof.cuts import IdealLayer

Point = list[Fraction]


def dense(rng: np.random.Generator, widths: Sequence[int], spread: int = 0, dtype: type = np.float64) -> Network:
    """A dense network; weights are of sizes 2^-spread to 2^spread, so that sums lose what is small in them."""
    nodes: list = [Input((widths[0],))]
    for depth, (before, after) in enumerate(itertools.pairwise(widths)):
        sizes = 2.0 ** rng.integers(-spread, spread + 1, (after, before + 1))
        values = (rng.normal(size=(after, before + 1)) * sizes).astype(dtype)
        nodes.append(Affine((after,), (Term(len(nodes) - 1, Dense(values[:, :-1])),), values[:, -1]))
        if depth < len(widths) - 2:
            nodes.append(Relu((after,), len(nodes) - 1))
    return Network(tuple(nodes), len(nodes) - 1)


@lru_cache(maxsize=64)  # many points are asked about in a row
def entries(operator: Operator) -> list[tuple[int, int, Fraction]]:
    """Row, column and value of what an operator multiplies by."""
    matrix = operator.to_sparse().tocoo()
    return [
        (r, c, Fraction(w))
        for r, c, w in zip(matrix.row.tolist(), matrix.col.tolist(), matrix.data.tolist(), strict=True)
    ]


def exact(network: Network, x: Point) -> list[Point]:
    """The values of all nodes at a point, in rational numbers; operators by their sparse matrices."""
    values: list[Point] = []
    for node in network.nodes:
        if isinstance(node, Input):
            values.append(list(x))
        elif isinstance(node, Relu):
            values.append([max(v, Fraction(0)) for v in values[node.source]])
        else:
            size = int(np.prod(node.shape))
            total = [Fraction(0)] * size
            if node.bias is not None:
                total = [Fraction(float(b)) for b in np.broadcast_to(node.bias, node.shape).reshape(-1)]
            for term in node.terms:
                source = values[term.source]
                for r, c, w in entries(term.operator):
                    total[r] += w * source[c]
            values.append(total)
    return values


def points(rng: np.random.Generator, lower: np.ndarray, upper: np.ndarray, count: int) -> Iterator[Point]:
    """Corners and inner points of a box, exactly."""
    low, high = ([Fraction(float(v)) for v in side.reshape(-1)] for side in (lower, upper))
    for k in range(count):
        share = rng.integers(0, 2, len(low)) * 16 if k % 2 else rng.integers(0, 17, len(low))
        yield [a + (b - a) * Fraction(int(s), 16) for a, b, s in zip(low, high, share, strict=True)]


def require_bounds(bounds: Bounds, rng: np.random.Generator, count: int = 12) -> None:
    """Raises where a value lies outside of its interval; bounds of one entry over its box."""
    for x in points(rng, bounds.lower[0], bounds.upper[0], count):
        for node, values in enumerate(exact(bounds.network, x)):
            low, high = (side[node].reshape(-1).tolist() for side in (bounds.lower, bounds.upper))
            for value, a, b in zip(values, low, high, strict=True):
                assert Fraction(a) <= value <= Fraction(b), f"node {node}: {float(value)} outside of [{a}, {b}]"


def dot(row: np.ndarray, x: Point) -> Fraction:
    return sum((Fraction(float(w)) * v for w, v in zip(row.reshape(-1), x, strict=True)), Fraction(0))


def below(lower: float, value: Fraction) -> bool:
    return lower == -np.inf or (np.isfinite(lower) and Fraction(float(lower)) <= value)


def random_box(rng: np.random.Generator, size: int, width: float) -> tuple[np.ndarray, np.ndarray]:
    center = rng.normal(size=(1, size))
    return center - width, center + width


def random_evidence(rng: np.random.Generator, bounds: Bounds, rows: int, with_cuts: bool = False) -> Evidence:
    network = bounds.network
    shapes = {relu: (rows, *network.nodes[relu].shape) for relu in network.relus}
    slopes = {relu: rng.normal(0.5, 0.7, shape) for relu, shape in shapes.items()}
    multipliers = {relu: rng.normal(0, 0.3, shape) for relu, shape in shapes.items()}
    cuts, factors = {}, {}
    if with_cuts:
        for relu in network.relus:
            if not bounds.unstable(relu).any():
                continue
            layer = IdealLayer.of(bounds, relu)
            chosen = rng.integers(0, len(layer.units), (rows, 3))
            cuts[relu] = layer.cuts(chosen, rng.random((rows, 3, layer.weights.shape[1])) < 0.5)
            factors[relu] = rng.normal(0.1, 0.3, (rows, 3))
    return Evidence(slopes, multipliers, cuts, factors)


def residual(rng: np.random.Generator, spread: int, center: np.ndarray | None = None) -> Network:
    """Convolutions of a 6 x 6 image, one with strides, a depthwise one, a residual sum and a concatenation.

    center (1, *input_shape): where the values behind the first convolution are large, and all later sums of these
    cancel to next to nothing.
    """
    nodes: list = [Input((1, 1, 6, 6))]
    values = [center]

    def conv(
        source: int, channels: int, pads: tuple[int, int, int, int], groups: int = 1, stride: int = 1, taps: int = 2
    ) -> Term:
        shape = nodes[source].shape
        weight = rng.normal(size=(channels, shape[1] // groups, taps, taps))
        weight = weight * 2.0 ** rng.integers(-spread, spread + 1, (1, 1, taps, taps))
        strides = (stride, stride)
        return Term(source, Conv(weight.astype(np.float32), shape[2:], strides, pads, groups=groups))

    def relu(*terms: Term, shape: tuple[int, ...] | None = None) -> int:
        shape = shape or terms[0].operator.out_shape
        bias = np.broadcast_to(rng.normal(size=(1, shape[1], 1, 1)).astype(np.float32), shape)
        if center is not None:
            sums = sum(t.operator.apply(values[t.source]).reshape(1, *shape) for t in terms)
            bias = 1e4 + bias if len(nodes) == 1 else 0.001 * rng.random(shape) - sums[0]
            values.extend([sums + bias, np.maximum(sums + bias, 0)])
        nodes.extend([Affine(shape, terms, bias), Relu(shape, len(nodes))])
        return len(nodes) - 1

    first = relu(conv(0, 2, (1, 0, 0, 1)))
    second = relu(conv(first, 2, (0, 1, 1, 0), groups=2))
    # Large windows become whole rows before they meet those that skip a layer.
    main = conv(second, 2, (2, 2, 1, 1), taps=4) if rng.random() < 0.5 else conv(second, 2, (1, 1, 0, 0))
    third = relu(main, Term(first, Identity(nodes[first].shape)))
    if rng.random() < 0.5:
        place, none, shape = np.arange(36), np.full(36, -1), (1, 3, 6, 6)
        parts = [np.concatenate([place, none, place + 36]), np.concatenate([none, place, none])]
        terms = [Term(s, Index(i, nodes[s].shape, shape)) for s, i in zip((third, second), parts, strict=True)]
        third = relu(*terms, shape=shape)
    output = relu(conv(third, 2, (0, 1, 0, 0), stride=2), conv(second, 2, (0, 1, 0, 0), stride=2)) - 1
    return Network(tuple(nodes[: output + 1]), output)


def lattice(rng: np.random.Generator, spread: int, center: np.ndarray | None = None) -> Network:
    """Layers whose units read three others each, and a sum with the layer before; center as in `_residual`."""
    nodes: list = [Input((3,))]
    values = [center]

    def layer(source: int, width: int, *more: Term) -> int:
        size, weight = nodes[source].shape[0], np.zeros((width, nodes[source].shape[0]))
        for row in weight:
            chosen = rng.choice(size, 3, replace=False)
            row[chosen] = rng.normal(size=3) * 2.0 ** rng.integers(-spread, spread + 1, 3)
        terms, bias = (Term(source, SparseLinear(weight.astype(np.float32))), *more), rng.normal(size=width)
        if center is not None:
            sums = sum(t.operator.apply(values[t.source]) for t in terms)
            bias = bias + 1e4 if len(nodes) == 1 else 0.001 * rng.random(width) - sums[0]
            values.extend([sums + bias, np.maximum(sums + bias, 0)])
        nodes.extend([Affine((width,), terms, bias), Relu((width,), len(nodes))])
        return len(nodes) - 1

    first = layer(0, 72)
    second = layer(first, 72, Term(first, Identity((72,))))
    output = layer(layer(second, 72), 4, Term(second, SparseLinear(np.eye(4, 72)))) - 1
    return Network(tuple(nodes[: output + 1]), output)


def inside(network: Network, values: list[Point], splits: Sequence[tuple[int, int, int]]) -> bool:
    return all(s * values[network.relu_source(r)][u] >= 0 for r, u, s in splits)
