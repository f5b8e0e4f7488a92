"""Rules for rows that reach a part of the network only (windows, sparse rows), judged by exact arithmetic."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from mipverify.presolve import interval

from mipverify.network import Affine, Input, Network, Term
from mipverify.network.convolution import Conv
from mipverify.proof.backward import unit_minimum
from mipverify.proof.interval import tighten
from mipverify.proof.patches import adaptive_patches, has_partial_rows, parallel_patches
from mipverify.proof.sparse_rows import sparse
from mipverify.proof.windows import windowed
from tests.proof.exact import below, exact, lattice, points, require_bounds, residual


def check_patches(rng: np.random.Generator) -> None:
    for dtype, spread, width in ((np.float64, 0, 0.2), (np.float32, 6, 0.2), (np.float32, 0, 0.0)):
        center = rng.normal(size=(1, 1, 1, 6, 6))
        network = residual(rng, spread, None if width else center)
        bounds = interval(network, center - width, center + width)
        rounded = bounds.outward(dtype) if dtype is np.float32 else bounds
        for node in (*network.preactivations[1:], network.output):
            if not windowed(network, node):
                continue
            units = np.arange(int(np.prod(network.nodes[node].shape)))
            for method in (parallel_patches, adaptive_patches):
                found = method(rounded, node, np.zeros(len(units), int), units)
                require_bounds(tighten(bounds, found), rng, 3 if width else 1)


def check_borders(rng: np.random.Generator) -> None:
    """Convolutions without a ReLU between them, the second one's values in the shape of its own or in another."""
    center, width = rng.normal(size=(1, 1, 1, 8, 8)), 0.3
    first, second = (Conv(rng.normal(size=(2, c, 3, 3)).astype(np.float32), (8, 8), pads=(1, 1, 1, 1)) for c in (1, 2))
    for shape in ((1, 2, 8, 8), (1, 8, 4, 4)):
        nodes = (
            Input((1, 1, 8, 8)),
            Affine((1, 2, 8, 8), (Term(0, first),), rng.normal(size=(1, 2, 8, 8)).astype(np.float32)),
            Affine(shape, (Term(1, second),), rng.normal(size=shape).astype(np.float32)),
        )
        bounds = interval(Network(nodes, 2), center - width, center + width)
        if windowed(bounds.network, 2):
            units = np.arange(128)
            for method in (parallel_patches, adaptive_patches):
                require_bounds(tighten(bounds, method(bounds, 2, np.zeros(len(units), int), units)), rng, 3)


def check_sparse_rows(rng: np.random.Generator) -> None:
    for dtype, spread, width in ((np.float64, 0, 0.2), (np.float32, 6, 0.2), (np.float32, 0, 0.0)):
        center = rng.normal(size=(1, 3))
        network = lattice(rng, spread, None if width else center)
        bounds = interval(network, center - width, center + width)
        rounded = bounds.outward(dtype) if dtype is np.float32 else bounds
        for node in (*network.preactivations[1:], network.output):
            assert sparse(network, node)
            units = np.arange(int(np.prod(network.nodes[node].shape)))
            for method in (parallel_patches, adaptive_patches):
                found = method(rounded, node, np.zeros(len(units), int), units)
                require_bounds(tighten(bounds, found), rng, 4 if width else 1)


def check_inexact_units(rng: np.random.Generator) -> None:
    """Bounds of units allow for what their node may differ by, whether their rows are sparse or whole."""
    center = rng.normal(size=(1, 3))
    plain = lattice(rng, 0, center)
    for node in (*plain.preactivations[1:], plain.output):
        units, off = np.arange(int(np.prod(plain.nodes[node].shape))), rng.random(plain.nodes[node].shape)
        nodes = [replace(each, error_bound=off) if k == node else each for k, each in enumerate(plain.nodes)]
        network = Network(tuple(nodes), plain.output)
        bounds = interval(network, center, center)
        ways = [[unit_minimum(bounds, node, None, units)]]
        if has_partial_rows(network, node):
            ways += [
                list(way(bounds, node, np.zeros(len(units), int), units))
                for way in (parallel_patches, adaptive_patches)
            ]
        value = exact(plain, next(points(rng, center[0], center[0], 1)))[node]
        for found in ways:
            lower, upper = (np.concatenate([getattr(part, side) for part in found]) for side in ("lower", "upper"))
            for low, high, middle, most in zip(lower, upper, value, off, strict=True):
                assert below(low, middle - Fraction(most))
                assert below(-high, -middle - Fraction(most))
