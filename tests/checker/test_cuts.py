"""Cuts in passes: what they show holds, and is what the format says, computed a second time in the plainest way."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from mipverify_check.arithmetic import EXACT, FLOATS
from mipverify_check.bounds import Aim, Bounds, Evidence, aim, interval, least
from mipverify_check.cuts import Cuts, SiteCuts
from mipverify_check.network import Network, Relu
from onnx import numpy_helper

from tests.checker.making import dense
from tests.checker.test_bounds import SEEDS, box, read, sample

POINTS, COUNT = 3, 6


def some_cuts(rng: np.random.Generator, bounds: Bounds, rows: int, scale: float = 1.0) -> Cuts:
    """Cuts of all layers, about which nothing was thought, some of which several rows share."""
    network = bounds.network
    relus = [k for k, node in enumerate(network.nodes) if isinstance(node, Relu)]
    positions = {0: (np.arange(network.nodes[0].size), rng.integers(0, 256, (POINTS, network.nodes[0].size), np.uint8))}
    for k in relus:
        units = rng.permutation(network.nodes[k].size)[: rng.integers(1, network.nodes[k].size + 1)]
        positions[k] = units, rng.integers(0, 256, (POINTS, len(units)), np.uint8)
    sites = {}
    for k in relus:
        entries = int(rng.integers(1, 3 * COUNT))
        row = np.sort(rng.integers(0, rows, entries))
        cut, multipliers = rng.integers(0, COUNT, entries), scale * rng.normal(size=entries)
        units, points = rng.integers(0, network.nodes[k].size, COUNT), rng.integers(0, POINTS, COUNT)
        phases = rng.integers(0, 256, COUNT)
        sites[k] = SiteCuts(units, points, phases, row, cut, multipliers)
    return Cuts(bounds, positions, sites)


def splits(rng: np.random.Generator, network: Network, rows: int) -> dict[int, tuple[np.ndarray, ...]]:
    """A phase of some unit of each layer in each row."""
    found = {}
    for node in network.nodes:
        if isinstance(node, Relu):
            found[node.source] = rng.integers(0, node.size, rows), np.arange(rows), rng.choice([-1, 1], rows)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_bounds_hold_where_the_phases_do(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    network = read(dense(rng, [3, 6, 6, 4]), tmp_path)
    inputs = box(rng, 3)
    bounds, points, rows = interval(network, inputs), sample(rng, inputs, 4000), 12
    values = network.values(points)
    node, units = network.output.node, rng.integers(0, 4, rows)
    factors, phases = rng.choice([-1, 1], rows), splits(rng, network, rows)
    for scale in (0.03, 1.0):
        cuts = some_cuts(rng, bounds, rows, scale)
        for split in ({}, phases):
            inside = np.ones((rows, points.shape[1]), bool)
            for source, (own, which, signs) in split.items():
                inside[which] &= signs[:, None] * values[source][own] >= 0
            found = least(bounds, Aim(node, units, factors), Evidence("adaptive", splits=split, cuts=cuts))
            reached = np.where(inside, factors[:, None] * values[node][units], np.inf)
            assert (found[:, None] <= reached).all()


def plain(built: onnx.ModelProto, bounds: Bounds, output: int, cuts: Cuts) -> Fraction:
    """The lower bound of one output of a dense network of two ReLU layers, as docs/proof-format.md has it."""
    relus = [k for k, node in enumerate(bounds.network.nodes) if isinstance(node, Relu)]
    held = {t.name: EXACT.array(numpy_helper.to_array(t)) for t in built.graph.initializer}
    weights, biases = [held[f"w{i}"].T for i in range(3)], [held[f"b{i}"] for i in range(3)]
    ends = [(bounds.lower[k][:, 0], bounds.upper[k][:, 0]) for k in (0, *relus)]
    before = [bounds.network.nodes[k].source for k in relus]
    sources = [(bounds.lower[k][:, 0], bounds.upper[k][:, 0]) for k in before]
    constant, a = biases[2][output], {1: weights[2][output]}
    start = {0: np.zeros(len(ends[0][0]), object)}
    for layer in (1, 0):
        k, (low, high) = relus[layer], sources[layer]
        y = a.pop(layer)
        below = start if layer == 0 else {0: np.zeros(len(ends[0][0]), object), 1: np.zeros(len(ends[1][0]), object)}
        site, gathered, phase = cuts.sites[k], y.copy(), np.zeros(len(y), object)
        for cut, g in zip(site.cuts, site.multipliers, strict=True):
            g, j, q = max(Fraction(g), Fraction(0)), site.units[cut], site.phases[cut]
            w, b = {0: weights[0][j]}, biases[0][j]
            if layer == 1:  # through the stable units of the first layer
                l1, u1 = sources[0]
                on = np.array([Fraction(l >= 0) for l in l1])  # noqa: E741
                w = {0: (weights[1][j] * on) @ weights[0], 1: np.where((l1 < 0) & (u1 > 0), weights[1][j], Fraction(0))}
                b = biases[1][j] + (weights[1][j] * on) @ biases[0]
            inside_low, outside_high = Fraction(0), Fraction(0)
            for part, row in w.items():
                named, where = cuts.positions[0 if part == 0 else relus[0]]
                position = {int(u): int(t) for u, t in zip(named, where[site.points[cut]], strict=True)}
                for i, value in enumerate(row):
                    least_, most = sorted([value * ends[part][0][i], value * ends[part][1][i]])
                    t = position.get(i, 300)
                    if (value > 0 and t < q) or (value < 0 and t <= 255 and 255 - t < q):
                        inside_low += least_
                        below[part][i] -= g * value
                    else:
                        outside_high += most
            h = -inside_low
            constant -= g * h
            gathered[j] += g
            phase[j] += g * (b + outside_high - h)
        z = np.zeros(len(y), object)
        for j, (c, d, l, u) in enumerate(zip(gathered, phase, low, high, strict=True)):  # noqa: E741
            if l >= 0:
                z[j], constant = c, constant - d
            elif u > 0:
                end, r = c * u - d, min(Fraction(0), -d)
                slope = end / (u - l)
                if r < -l * slope:
                    slope = r / -l + int(u > -l) * ((end - r) / u - r / -l)
                slope = Fraction(float(slope))
                z[j] = slope
                constant += min(-slope * l, Fraction(0), -d, (c - slope) * u - d)
        constant += z @ biases[layer]
        passed = z @ weights[layer]
        if layer == 1:
            a[0], start = below[1] + passed, {0: below[0]}
        else:
            total = below[0] + passed
    low, high = ends[0]
    return constant + sum(min(c * l, c * u) for c, l, u in zip(total, low, high, strict=True))  # noqa: E741


@pytest.mark.parametrize("seed", range(6))
def test_bounds_are_what_the_format_says(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    built, state = dense(rng, [2, 4, 4, 2]), rng.bit_generator.state
    found = {}
    for arithmetic in (EXACT, FLOATS):
        rng.bit_generator.state = state
        network = read(built, tmp_path, arithmetic)
        bounds = interval(network, box(rng, 2, arithmetic))
        cuts = some_cuts(rng, bounds, 1, 0.1)
        (value,) = least(bounds, aim(network.output.node, np.array([0])), Evidence("adaptive", cuts=cuts))
        found[arithmetic.exact] = value
        if arithmetic.exact:
            assert value == plain(built, bounds, 0, cuts)
    assert found[False] <= found[True]
    assert found[False] == pytest.approx(float(found[True]), abs=1e-9)
