"""Bounds hold at sampled points, whatever the evidence; in floats they are no tighter than in rational numbers."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mipverify_check import onnx_file
from mipverify_check.arithmetic import EXACT, FLOATS, Arithmetic
from mipverify_check.bounds import Aim, Bounds, Evidence, aim, interval, least, lines, ranges
from mipverify_check.facts import tightened
from mipverify_check.input_set import InputSet
from mipverify_check.maps import Coefficients
from mipverify_check.network import Network, Relu
from mipverify_check.operators import lowered
from mipverify_check.question import Ball
from onnx import helper

from tests.checker.making import dense, model

SEEDS = range(12)


def images(rng: np.random.Generator) -> Any:
    """A small network with convolutions, a maximum over windows, a residual connection and other activations."""

    def draw(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / 2).astype(np.float32)

    nodes = [
        helper.make_node("Conv", ["x", "k", "kb"], ["a"], pads=[1, 1, 0, 1], strides=[1, 2]),
        helper.make_node("LeakyRelu", ["a"], ["b"], alpha=0.1),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "w", "wb"], ["e"]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("Clip", ["e", "low", "high"], ["g"]),
        helper.make_node("Add", ["f", "g"], ["h"]),
        helper.make_node("Gemm", ["h", "v"], ["y"]),
    ]
    constants = {"k": draw(2, 1, 2, 2), "kb": draw(2), "w": draw(12, 5), "wb": draw(5), "v": draw(5, 3)}
    constants |= {"low": np.float32(-0.25), "high": np.float32(0.5)}
    return model(nodes, constants, [1, 1, 4, 5])


def read(built: Any, folder: Any, arithmetic: Arithmetic = FLOATS) -> Network:
    onnx.save(built, folder / "net.onnx")
    return lowered(onnx_file.read(str(folder / "net.onnx")), arithmetic)


def sample(rng: np.random.Generator, inputs: InputSet, count: int = 400) -> np.ndarray:
    """Points (inputs, count) of a box, corners among them."""
    share = rng.uniform(size=(len(inputs.lower), count))
    share[:, ::2] = np.round(share[:, ::2])
    low, high = inputs.lower.astype(float), inputs.upper.astype(float)
    return np.asarray(np.clip(low + share * (high - low), low, high))


def box(rng: np.random.Generator, size: int, arithmetic: Arithmetic = FLOATS, **more: Any) -> InputSet:
    center, radius = rng.normal(size=(size, 1)), rng.uniform(0, 0.4, size=(size, 1))
    return InputSet(arithmetic, arithmetic.array(center - radius), arithmetic.array(center + radius), **more)


def evidence(rng: np.random.Generator, network: Network, rows: int, m: int = 0) -> Evidence:
    """Evidence as a careless search would leave it: anything."""
    slopes, multipliers = {}, {}
    for k, node in enumerate(network.nodes):
        if isinstance(node, Relu):
            units = rng.permutation(node.size)[: rng.integers(1, node.size + 1)]
            numbers = rng.uniform(-1, 2, size=(rows, len(units))).astype(np.float32)
            slopes[k] = units, numbers if rng.random() < 0.5 else rng.integers(0, 256, numbers.shape).astype(np.uint8)
            multipliers[k] = units, rng.normal(size=(rows, len(units))).astype(np.float32)
    lines = str(rng.choice(["parallel", "adaptive"]))
    return Evidence(lines, slopes, multipliers, rng.normal(size=(rows, m)) if m else None)


def holds_at(bounds: Bounds, points: np.ndarray) -> None:
    for low, high, value in zip(bounds.lower, bounds.upper, bounds.network.values(points), strict=True):
        slack = 1e-12 * (1 + np.abs(value))
        assert (low <= value + slack).all()
        assert (value <= high + slack).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["dense", "images"])
def test_bounds_hold_at_all_points_of_the_set(kind: str, seed: int, tmp_path: Any) -> None:
    rng = np.random.default_rng(seed)
    network = read(dense(rng, [4, 7, 6, 3]) if kind == "dense" else images(rng), tmp_path)
    inputs = box(rng, network.nodes[0].size)
    bounds, points = interval(network, inputs), sample(rng, inputs)
    holds_at(bounds, points)
    for node in network.nodes:
        if isinstance(node, Relu):
            units = np.arange(node.size)
            low, high = ranges(bounds, aim(node.source, units))
            bounds = tightened(
                bounds,
                node.source,
                units,
                *(
                    f(a[:, None], old[node.source])
                    for f, a, old in ((np.fmax, low, bounds.lower), (np.fmin, high, bounds.upper))
                ),
            )
            holds_at(bounds, points)
    output = network.output.node
    rows = rng.integers(0, network.output.size, 8)
    signs = rng.choice([1, -1], 8)
    found = least(bounds, Aim(output, rows, signs), evidence(rng, network, 8))
    values = network.values(points)[output][rows] * signs[:, None]
    assert (found <= values.min(1) + 1e-11).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_splits_hold_where_they_are_assumed(seed: int, tmp_path: Any) -> None:
    rng = np.random.default_rng(seed)
    network = read(dense(rng, [3, 6, 5, 2]), tmp_path)
    inputs = box(rng, 3)
    bounds, points = interval(network, inputs), sample(rng, inputs, 3000)
    values = network.values(points)
    relus = [k for k, node in enumerate(network.nodes) if isinstance(node, Relu)]
    source = network.nodes[relus[0]].source  # type: ignore[union-attr]
    units, signs = np.array([0, 1, 1, 2]), np.array([1, -1, 1, -1])
    which = np.array([0, 0, 1, 1])  # two rows with two splits each
    splits = {source: (units, which, signs)}
    given = evidence(rng, network, 2)
    given = Evidence(given.lines, given.slopes, given.multipliers, None, splits)
    found = least(bounds, aim(network.output.node, np.zeros(2, int)), given)
    for row in (0, 1):
        own = which == row
        inside = (values[source][units[own]] * signs[own][:, None] >= 0).all(0)
        if inside.any():
            assert found[row] <= values[network.output.node][0, inside].min() + 1e-11


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("seed", SEEDS)
def test_balls_and_inequalities_hold_and_tighten(norm: str, seed: int, tmp_path: Any) -> None:
    rng = np.random.default_rng(seed)
    network = read(dense(rng, [5, 6, 2]), tmp_path)
    center, scale = rng.normal(size=5), rng.uniform(0.5, 2, size=5)
    scale[0] = 0 if seed % 2 else 1
    radius = Fraction(1, 3)
    reach = float(radius) * scale[:, None]
    low, high = center[:, None] - reach, center[:, None] + reach
    matrix, offset = rng.normal(size=(2, 5)), rng.normal(size=2) + 1
    inputs = InputSet(FLOATS, low, high, Ball(norm, center, scale, radius), matrix, offset)
    points = sample(rng, inputs, 20_000)
    away = np.divide(points - center[:, None], scale[:, None], out=np.zeros_like(points), where=scale[:, None] > 0)
    length = np.abs(away).sum(0) if norm == "l1" else np.sqrt((away**2).sum(0))
    points = center[:, None] + (points - center[:, None]) * np.minimum(1, float(radius) / np.maximum(length, 1e-9))
    points = points[:, (matrix @ points <= offset[:, None]).all(0)]
    bounds = interval(network, inputs)
    rows = np.array([0, 1, 0, 1])
    signs = np.array([1, 1, -1, -1])
    given = evidence(rng, network, 4, 2)
    found = least(bounds, Aim(network.output.node, rows, signs), given)
    if points.size:
        values = network.values(points)[network.output.node][rows] * signs[:, None]
        assert (found <= values.min(1) + 1e-11).all()
    # Of a linear function the ball's least value is known: a . x0 - R |S a|*.
    a = rng.normal(size=(5, 1))
    wide = InputSet(FLOATS, center[:, None] - 10 * scale[:, None], center[:, None] + 10 * scale[:, None], inputs.ball)
    value = wide.least(Coefficients(a), lambda v: v, None, False)[0][0, 0]
    steep = np.abs(a[:, 0]) * scale
    dual = steep.max() if norm == "l1" else np.sqrt((steep**2).sum())
    assert value <= a[:, 0] @ center - float(radius) * dual + 1e-12
    assert value >= a[:, 0] @ center - float(radius) * dual - 1e-6


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["dense", "images"])
def test_floats_are_no_tighter_than_rational_numbers_and_hardly_looser(kind: str, seed: int, tmp_path: Any) -> None:
    rng = np.random.default_rng(seed)
    built = dense(rng, [3, 5, 4, 2]) if kind == "dense" else images(rng)
    found = []
    for arithmetic in (FLOATS, EXACT):
        own = np.random.default_rng(seed + 100)
        network = read(built, tmp_path, arithmetic)
        ball = Ball("l2", own.normal(size=network.nodes[0].size), np.ones(network.nodes[0].size), Fraction(1, 2))
        inputs = box(own, network.nodes[0].size, arithmetic, ball=ball if seed % 2 else None)
        bounds = interval(network, inputs)
        # Passes see the same bounds, so that only their own rounding differs.
        first = found[0][0] if found else bounds
        same = Bounds(network, inputs, *([arithmetic.array(v) for v in side] for side in (first.lower, first.upper)))
        same.magnitudes += bounds.magnitudes
        rows = least(same, aim(network.output.node, np.arange(2)), evidence(own, network, 2))
        found.append((bounds, rows))
    (floats, rows), (exact, wanted) = found
    for k in range(len(floats.lower)):
        assert (floats.lower[k].astype(object) <= exact.lower[k]).all()
        assert (floats.upper[k].astype(object) >= exact.upper[k]).all()
        np.testing.assert_allclose(floats.lower[k], exact.lower[k].astype(float), atol=1e-11)
    assert all(Fraction(float(a)) <= b for a, b in zip(rows, wanted, strict=True))
    np.testing.assert_allclose(rows.astype(float), wanted.astype(float), atol=1e-9)


def test_columns_are_sets_of_their_own(tmp_path: Any) -> None:
    rng = np.random.default_rng(3)
    network = read(images(rng), tmp_path)
    sets = [box(rng, 20) for _ in range(3)]
    together = InputSet(FLOATS, np.hstack([s.lower for s in sets]), np.hstack([s.upper for s in sets]))
    rows, column = np.array([0, 1, 2, 0, 1]), np.array([2, 0, 1, 1, 2])
    for kind in ("parallel", "adaptive"):
        found = least(interval(network, together), aim(network.output.node, rows, 1, column), Evidence(kind))
        for i, (row, own) in enumerate(zip(rows, column, strict=True)):
            alone = least(interval(network, sets[own]), aim(network.output.node, np.array([row])), Evidence(kind))
            assert found[i] == pytest.approx(alone[0], abs=1e-12)


def test_the_upper_line_lies_above_the_relu_at_both_ends() -> None:
    rng = np.random.default_rng(0)
    low, high = -(10.0 ** rng.uniform(-300, 20, 5000)), 10.0 ** rng.uniform(-300, 20, 5000)
    slope, offset, _ = lines(FLOATS, low, high)
    for s, t, low_end, high_end in zip(slope, offset, low, high, strict=True):
        assert Fraction(s) * Fraction(low_end) + Fraction(t) >= 0
        assert Fraction(s) * Fraction(high_end) + Fraction(t) >= Fraction(high_end)


def test_sums_that_cancel_are_not_believed(tmp_path: Any) -> None:
    """1e8 x + 1 - 1e8 x is 1: in float64 passes may lose digits, never gain them."""
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "v", "c"], ["y"]),
    ]
    big = np.float32(2.0**40)
    constants = {
        "w": np.array([[big, big]], np.float32),
        "v": np.array([[big], [-big]], np.float32),
        "c": np.array([2.0**-20], np.float32),
    }
    network = read(model(nodes, constants, [1, 1]), tmp_path)
    inputs = InputSet(FLOATS, np.array([[1.0]]), np.array([[1.0 + 2**-20]]))
    bounds = interval(network, inputs)
    assert least(bounds, aim(network.output.node, np.array([0])), Evidence("parallel"))[0] <= 2.0**-20


@pytest.mark.parametrize("seed", range(4))
def test_rational_numbers_stay_rational(seed: int, tmp_path: Path) -> None:
    """One float among them, and sums are rounded without an error bound."""
    rng = np.random.default_rng(seed)
    network = read(images(rng) if seed % 2 else dense(rng, [3, 5, 5, 2]), tmp_path, EXACT)
    size = network.nodes[0].size
    ball = Ball("l2", np.zeros(size), np.ones(size), Fraction(1, 3))
    inputs = InputSet(EXACT, EXACT.array(np.full((size, 1), -0.1)), EXACT.array(np.full((size, 1), 0.3)), ball)
    bounds = interval(network, inputs)
    units = np.arange(network.output.size)
    found = [*bounds.lower, *bounds.upper, *bounds.magnitudes]
    found.append(least(bounds, aim(network.output.node, units), evidence(rng, network, len(units))))
    found.append(ranges(bounds, aim(network.output.node, units)))
    assert all(isinstance(value, Fraction | int) for array in found for value in array.flat)
