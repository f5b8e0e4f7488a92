"""Partial rows are another way to hold the same rows: their bounds are those of whole rows, up to rounding."""

from __future__ import annotations

import numpy as np
import pytest
from mipverify.presolve import interval

from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.convolution import Conv
from mipverify.network.operators import Identity, Index
from mipverify.network.sparse_linear import SparseLinear
from mipverify.proof.backward import unit_minimum
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import UnitBounds
from mipverify.proof.parallel import both_sides
from mipverify.proof.patches import adaptive_patches, has_partial_rows, parallel_patches
from mipverify.proof.rows import unit_rows


def convolutional(rng: np.random.Generator) -> Network:
    """Random convolutions with random strides, pads, dilations and groups, residual sums and concatenations."""
    nodes: list = [Input((1, int(rng.integers(1, 4)), int(rng.integers(9, 14)), int(rng.integers(9, 14))))]
    last = 0
    for _ in range(int(rng.integers(2, 5))):
        shape = nodes[last].shape
        kernel, pads = rng.integers(1, 4, 2), tuple(int(p) for p in rng.integers(0, 2, 4))
        groups = shape[1] if rng.random() < 0.2 else 1
        channels = groups * int(rng.integers(1, 3)) if groups > 1 else int(rng.integers(1, 7))
        strides, dilations = (tuple(int(n) for n in rng.choice([1, 1, 2], 2)) for _ in range(2))
        weight = rng.normal(size=(channels, shape[1] // groups, *kernel)).astype(np.float32)
        try:
            conv = Conv(weight, shape[2:], strides, pads, dilations, groups)
        except ValueError:  # the kernel does not fit any more
            break
        terms = [Term(last, conv)]
        same = [k for k, node in enumerate(nodes) if node.shape == conv.out_shape and isinstance(node, Relu)]
        if same and rng.random() < 0.7:
            terms.append(Term(int(rng.choice(same)), Identity(conv.out_shape)))
        bias = np.broadcast_to(rng.normal(size=(1, channels, 1, 1)), conv.out_shape)
        nodes += [Affine(conv.out_shape, tuple(terms), bias), Relu(conv.out_shape, len(nodes))]
        last = len(nodes) - 1
        if rng.random() < 0.4:  # a concatenation with itself, channels in another order
            shape = nodes[last].shape
            order = rng.permutation(shape[1])
            place = np.arange(shape[2] * shape[3])
            indices = (order[:, None] * len(place) + place).reshape(-1)
            none, double = np.full(len(indices), -1), (1, 2 * shape[1], *shape[2:])
            parts = np.concatenate([indices, none]), np.concatenate([none, np.arange(len(indices))])
            terms = [Term(last, Index(part, shape, double)) for part in parts]
            nodes += [Affine(double, tuple(terms), rng.normal(size=double) - 1), Relu(double, len(nodes))]
            last = len(nodes) - 1
    return Network(tuple(nodes), last - 1)


def chained(rng: np.random.Generator) -> Network:
    """Random convolutions that also read one another with no ReLU between, or through sums, or in another shape."""
    nodes: list = [Input((1, 2, int(rng.integers(8, 14)), int(rng.integers(8, 14))))]
    for _ in range(6):
        last = int(rng.integers(max(0, len(nodes) - 2), len(nodes)))
        shape, kernel, channels = nodes[last].shape, rng.integers(1, 4, 2), int(rng.choice([2, 4, 6]))
        pads, strides = tuple(int(p) for p in rng.integers(0, 4, 4)), tuple(int(n) for n in rng.choice([1, 1, 2], 2))
        try:
            conv = Conv(rng.normal(size=(channels, shape[1], *kernel)), shape[2:], strides, pads)
        except ValueError:  # the kernel does not fit any more
            break
        terms, shape = [Term(last, conv)], conv.out_shape
        same = [k for k, node in enumerate(nodes) if node.shape == shape]
        if same and rng.random() < 0.7:
            terms.append(Term(int(rng.choice(same)), Identity(shape)))
        if rng.random() < 0.2:
            shape = (1, channels // 2, 2 * shape[2], shape[3])
        nodes.append(Affine(shape, tuple(terms), rng.normal(size=shape)))
        if rng.random() < 0.3:
            nodes.append(Relu(shape, len(nodes) - 1))
    affine = [k for k, node in enumerate(nodes) if isinstance(node, Affine)]
    return Network(tuple(nodes), affine[-1])


def lattice(rng: np.random.Generator) -> Network:
    """Random sparse layers, some of which read two others."""
    nodes: list = [Input((4,))]
    for width in (60, 80, 60, 5):
        terms = []
        for source in [len(nodes) - 1, *([2] if len(nodes) > 4 else [])]:
            weight = rng.normal(size=(width, nodes[source].shape[0])) * (
                rng.random((width, nodes[source].shape[0])) < 0.05
            )
            terms.append(Term(source, SparseLinear(weight)))
        nodes += [Affine((width,), tuple(terms), rng.normal(size=width)), Relu((width,), len(nodes))]
    return Network(tuple(nodes), len(nodes) - 2)


def whole(bounds: Bounds, node: int, samples: np.ndarray, units: np.ndarray, parallel: bool) -> UnitBounds:
    if not parallel:
        return unit_minimum(bounds, node, samples, units)
    return both_sides(bounds, unit_rows(bounds.network, node, units, samples, bounds.like))


@pytest.mark.parametrize("make", [convolutional, chained, lattice])
@pytest.mark.parametrize("seed", range(12))
def test_bounds_of_partial_rows_are_those_of_whole_ones(make, seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = make(rng)
    center = rng.normal(size=(3, *network.input_shape))
    bounds = interval(network, center - 0.1, center + 0.1)
    tried = 0
    for node in {*network.preactivations, network.output}:
        if not has_partial_rows(network, node):
            continue
        units = rng.permutation(int(np.prod(network.nodes[node].shape)))[:90]
        samples = rng.integers(0, 3, len(units))
        for method, parallel in ((adaptive_patches, False), (parallel_patches, True)):
            found = list(method(bounds, node, samples, units))
            want = whole(bounds, node, samples, units, parallel)
            for side in ("lower", "upper"):
                got = np.concatenate([getattr(fact, side) for fact in found])
                np.testing.assert_allclose(got, getattr(want, side), rtol=1e-7, atol=1e-7)
            tried += 1
    assert tried


def test_sparse_rows_of_a_node_that_stands_for_something_else_nearby() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(60, 40)) * (rng.random((60, 40)) < 0.05)
    off = rng.random(60)
    network = Network((Input((40,)), Affine((60,), (Term(0, SparseLinear(weight)),), None, off)), 1)
    bounds = interval(network, -np.ones((1, 40)), np.ones((1, 40)))
    units = np.arange(60)
    if not has_partial_rows(network, 1):
        return
    for fact in (*adaptive_patches(bounds, 1, 0 * units, units), *parallel_patches(bounds, 1, 0 * units, units)):
        reach = np.abs(weight).sum(axis=1)[fact.units] + off[fact.units]
        assert (fact.lower <= -reach).all()
        assert (fact.upper >= reach).all()
