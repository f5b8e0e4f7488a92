"""Float32 evaluations of networks in random orders of summation, with and without fused multiply-add."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from mipverify.presolve import interval

from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.deployed import EXTRA, deployed
from mipverify.network.operators import Dense, Identity, Index, Scale
from mipverify.proof.backward import row_minimum
from mipverify.proof.bounds import Bounds
from mipverify.proof.cuts import IdealLayer, cuttable
from mipverify.proof.parallel import both_sides
from mipverify.proof.patches import adaptive_patches, has_partial_rows, parallel_patches
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import unit_rows
from tests.proof.test_partial_rows import convolutional

ACCUMULATORS = 3  # partial sums, added up in the end


def in_float32(network: Network) -> Network:
    """A network made by hand as `deployed` has it: sums are rounded, movements of data are not."""
    nodes = []
    for node in network.nodes:
        if isinstance(node, Affine) and not (
            node.bias is None and len(node.terms) == 1 and isinstance(node.terms[0].operator, Identity | Index)
        ):
            most = max(np.diff(_matrix(node).indptr), default=0)
            node = replace(node, steps=int(most) + len(node.terms) + 1 + EXTRA)
        nodes.append(node)
    return deployed(replace(network, nodes=tuple(nodes), unrounded=None))


def _matrix(node: Affine):
    import scipy.sparse

    return scipy.sparse.csr_array(scipy.sparse.hstack([term.operator.to_sparse() for term in node.terms]))


def evaluations(network: Network, points: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Values (K, size) of all nodes at float32 points (K, n), one evaluation of its own for each."""
    values: list[np.ndarray] = []
    for node in network.nodes:
        if isinstance(node, Input):
            values.append(points.astype(np.float32).reshape(len(points), -1))
        elif isinstance(node, Relu):
            values.append(np.maximum(values[node.source], np.float32(0)))
        else:
            values.append(_affine(node, values, rng))
    return values


def _affine(node: Affine, values: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Every entry with its own order of products, split over accumulators, some fused with the addition."""
    count, size = len(values[0]), int(np.prod(node.shape))
    if node.terms:
        weights = np.asarray(_matrix(node).todense()).astype(np.float32)
        x = np.concatenate([values[term.source] for term in node.terms], axis=1)
    else:
        weights, x = np.zeros((size, 0), np.float32), np.zeros((count, 0), np.float32)
    if node.bias is not None:
        bias = np.broadcast_to(np.asarray(node.bias), node.shape).reshape(-1, 1).astype(np.float32)
        weights, x = np.concatenate([weights, bias], 1), np.concatenate([x, np.ones((count, 1), np.float32)], 1)
    used = max(1, int((weights != 0).sum(1).max(initial=0)))
    order = np.argsort(weights == 0, axis=1, kind="stable")[:, :used]
    weights, columns = np.take_along_axis(weights, order, 1), order
    shuffled = rng.permuted(np.broadcast_to(np.arange(used), (count, size, used)), axis=2)
    total = np.zeros((ACCUMULATORS, count, size), np.float32)
    rows, places = np.arange(count)[:, None], np.arange(size)[None]
    for step in range(used):
        at = shuffled[:, :, step]
        a, b = weights[places, at], x[rows, columns[places, at]]
        into = rng.integers(0, ACCUMULATORS, (count, size))
        held = total[into, rows, places]
        fused = (a.astype(np.float64) * b.astype(np.float64) + held.astype(np.float64)).astype(np.float32)
        total[into, rows, places] = np.where(rng.random((count, size)) < 0.5, fused, held + a * b)
    result = total[0]
    for part in total[1:]:
        result = result + part
    return result


def stored(network: Network) -> list[int]:
    """Nodes whose values a runtime has, and not only what they become."""
    nodes = enumerate(network.nodes)
    return [k for k, node in nodes if not (isinstance(node, Affine) and node.rounded is not None and node.rounded.open)]


def require_values(bounds: Bounds, values: list[np.ndarray]) -> None:
    """Assert that values (K, size) of stored nodes lie within bounds of batch 1."""
    for k in stored(bounds.network):
        low, high = (side[k].reshape(-1) for side in (bounds.lower, bounds.upper))
        assert (values[k] >= low).all(), f"node {k}"
        assert (values[k] <= high).all(), f"node {k}"


def sides(bounds: Bounds, node: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Lower and upper bounds of all entries of a node by every way of passing rows back."""
    units = np.arange(int(np.prod(bounds.network.nodes[node].shape)))
    rows = unit_rows(bounds.network, node, units, None, bounds.like)
    found = [(row_minimum(bounds, rows).lower, -row_minimum(bounds, rows.negated()).lower)]
    parallel = both_sides(bounds, rows)
    found.append((parallel.lower, parallel.upper))
    if has_partial_rows(bounds.network, node):
        for method in (parallel_patches, adaptive_patches):
            parts = list(method(bounds, node, np.zeros(len(units), int), units))
            lower, upper = (np.concatenate([getattr(part, side) for part in parts]) for side in ("lower", "upper"))
            found.append((lower, upper))
    return found


def require_rows(bounds: Bounds, node: int, values: np.ndarray) -> None:
    """Assert that values (K, size) of a node lie within its bounds by every way of passing rows back."""
    for low, high in sides(bounds, node):
        assert (values >= low).all()
        assert (values <= high).all()


def cancelling_layers(rng: np.random.Generator) -> tuple[Network, np.ndarray]:
    """Sums far smaller than their summands, some scaled after that, before ReLUs; and an input (1, n), at which some
    units of the first layer are zero but for rounding."""
    size, nodes = int(rng.integers(2, 5)), list[Any]()
    x = np.repeat(rng.normal(size=(1, size)), 2, axis=1).astype(np.float32)
    nodes.append(Input((2 * size,)))
    for depth in range(3):
        weight = np.repeat(rng.normal(size=(6, size)) * 300, 2, axis=1).astype(np.float32)
        weight[:, 1::2] *= -1 + 1e-4 * rng.normal(size=(6, size)).astype(np.float32)
        bias = rng.normal(size=6) * rng.choice([3, 1e6])
        if not depth:
            bias[:3] = -(weight[:3].astype(np.float64) @ x[0])
        nodes.append(Affine((6,), (Term(len(nodes) - 1, Dense(weight)),), bias.astype(np.float32)))
        if rng.random() < 0.5:
            factor, offset = (rng.normal(size=6).astype(np.float32) for _ in range(2))
            nodes.append(Affine((6,), (Term(len(nodes) - 1, Scale(factor, (6,))),), offset * np.float32(1e-2)))
        if depth < 2:
            nodes.append(Relu((6,), len(nodes) - 1))
        size = 3
    return Network(tuple(nodes), len(nodes) - 1), x


def check_deployed(rng: np.random.Generator) -> None:
    """Bounds for float32, and cuts, hold for evaluations in random orders; where numbers over- or underflow, too."""
    network, x = cancelling_layers(rng)
    network = in_float32(network)
    for steps in (0, 2):
        bounds, values = at_neighbours(network, x, steps, rng)
        small = reduce(bounds).bounds
        low, high = (side[small.network.output] for side in (small.lower, small.upper))
        assert (values[network.output] >= low).all()
        assert (values[network.output] <= high).all()
        for node in cuttable(network):
            _require_cuts(bounds, node, values, rng)
    network = in_float32(convolutional(rng))
    at_neighbours(network, (rng.normal(size=(1, *network.input_shape)) * 10).astype(np.float32), 2, rng)
    _check_ranges(rng)


def at_neighbours(
    network: Network, x: np.ndarray, steps: int, rng: np.random.Generator
) -> tuple[Bounds, list[np.ndarray]]:
    """Bounds over the float32 numbers up to `steps` from x (1, *input_shape), and values of evaluations there.

    Asserts that these lie within those, by every rule.
    """
    spacing = np.spacing(np.abs(x)).astype(np.float64)  # between neighbours
    bounds = interval(network, x - steps * spacing, x + steps * spacing)
    points = x + rng.integers(-steps, steps + 1, (40, *network.input_shape)) * spacing
    values = evaluations(network, points.reshape(40, -1), rng)
    require_values(bounds, values)
    for node in {*network.preactivations, network.output}.intersection(stored(network)):
        if isinstance(network.nodes[node], Affine):
            require_rows(bounds, node, values[node])
    return bounds, values


def _require_cuts(bounds: Bounds, node: int, values: list[np.ndarray], rng: np.random.Generator) -> None:
    if not np.asarray(bounds.unstable(node)).any():
        return
    layer = IdealLayer.of(bounds, node)
    if layer.source not in stored(bounds.network):  # its exact value is what cuts are about
        return
    count = len(layer.units)
    inside = rng.random((1, 2 * count, layer.weights.shape[1])) < 0.5
    cuts = layer.cuts(np.tile(np.arange(count), 2)[None], inside)
    before, after = (values[k][:, cuts.units[0]].astype(np.float64) for k in (layer.before, node))
    phase = (before > 0).astype(np.float64)
    products = values[layer.source].astype(np.float64) @ cuts.matrix[0].T
    assert (after - products - cuts.step * phase <= cuts.limit).all()


def _check_ranges(rng: np.random.Generator) -> None:
    size = float(rng.uniform(1, 2))
    for weight, at in ((1e-20, 1e-19), (1e15, 1e30)):
        nodes = (Input((2,)), Affine((1,), (Term(0, Dense(np.full((1, 2), weight * size, np.float32))),)))
        network = in_float32(Network(nodes, 1))
        bounds = interval(network, np.full((1, 2), at), np.full((1, 2), at))
        low, high = bounds.lower[1].item(), bounds.upper[1].item()
        assert low <= 0 if weight < 1 else high == np.inf, "what underflows may vanish, and overflow is unbounded"
