"""Dense networks as lists of layers, questions about them, and how low sampling gets: what metamorphic tests need."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense
from mipverify.specification import Box, Case, Condition, Specification
from mipverify.specification.conditions import Row

Layers: TypeAlias = list[tuple[np.ndarray, np.ndarray]]
# Rows c . y <= b, all of which a violating output meets.
Rows: TypeAlias = Sequence[tuple[Sequence[float], float | Fraction]]


def random_layers(rng: np.random.Generator, widths: Sequence[int]) -> Layers:
    """Weights (out, in) and biases (out,), float32."""
    layers = []
    for before, after in itertools.pairwise(widths):
        weight = rng.normal(size=(after, before)) / np.sqrt(before)
        layers.append((weight.astype(np.float32), (0.3 * rng.normal(size=after)).astype(np.float32)))
    return layers


def dense(layers: Sequence[tuple[object, object]]) -> Network:
    """ReLUs between all layers, none behind the last."""
    nodes: list = [Input((np.shape(layers[0][0])[1],))]
    for depth, (weight, bias) in enumerate(layers):
        b = np.asarray(bias, np.float32)
        nodes.append(Affine((len(b),), (Term(len(nodes) - 1, Dense(np.asarray(weight, np.float32))),), b))
        if depth < len(layers) - 1:
            nodes.append(Relu((len(b),), len(nodes) - 1))
    return Network(tuple(nodes), len(nodes) - 1)


def question(lower: object, upper: object, conditions: Sequence[Rows]) -> Specification:
    """Violated where an input between the bounds, exact numbers all, meets a condition."""
    low, high = ([Fraction(v) for v in np.asarray(side).tolist()] for side in (lower, upper))
    outputs = len(conditions[0][0][0])
    made = tuple(
        Condition.from_rows(
            [Row({i: Fraction(v) for i, v in enumerate(c) if v}, {}, Fraction(b)) for c, b in rows], len(low), outputs
        )
        for rows in conditions
    )
    return Specification((Case(Box.from_exact(low, high), made),), "vnnlib")


def exact_output(layers: Sequence[tuple[object, object]], x: Sequence[float]) -> list[Fraction]:
    """The network's value at one point, in rational numbers."""
    values = [Fraction(float(v)) for v in x]
    for depth, (weight, bias) in enumerate(layers):
        w = [[Fraction(float(v)) for v in row] for row in np.asarray(weight, np.float32)]
        b = [Fraction(float(v)) for v in np.asarray(bias, np.float32)]
        values = [sum((p * q for p, q in zip(row, values, strict=True)), c) for row, c in zip(w, b, strict=True)]
        if depth < len(layers) - 1:
            values = [max(v, Fraction(0)) for v in values]
    return values


def lowest_sampled(
    network: Network, lower: np.ndarray, upper: np.ndarray, row: Sequence[float], seed: int = 0
) -> float:
    """The least value of row . output that random points, corners and a descent from the best of them find."""
    rng = np.random.default_rng(seed)
    share = rng.random((2000, len(lower)))
    share[:1000] = share[:1000].round()

    def value(points: np.ndarray) -> np.ndarray:
        return network.forward(points.reshape(len(points), *network.input_shape)).reshape(len(points), -1) @ row

    points = np.clip(lower + share * (upper - lower), lower, upper)
    best = points[np.argmin(value(points))]
    for width in (1.0, 0.5, 0.25, 0.1, 0.03, 0.01):
        for _ in range(3):
            flips = rng.random((300, len(lower))) < 2.0 / len(lower)
            moved = np.clip(best + flips * rng.normal(size=flips.shape) * width * (upper - lower), lower, upper)
            moved = np.concatenate([best[None], moved])
            best = moved[np.argmin(value(moved))]
    return float(value(best[None])[0])


def raised(network: Network, by: float | np.ndarray) -> Network:
    """The same network with numbers (k,), or one, added to its outputs (k,)."""
    last = network.nodes[network.output]
    assert isinstance(last, Affine)
    bias = np.broadcast_to(0.0 if last.bias is None else last.bias, last.shape) + np.reshape(by, (-1,))
    moved = Affine(last.shape, last.terms, bias.reshape(last.shape), last.error_bound)
    return Network((*network.nodes[: network.output], moved), network.output, input_name=network.input_name)


def picked(network: Network, outputs: np.ndarray, by: np.ndarray) -> Network:
    """A network whose outputs (R,) are some of another's, by index and as often as wanted, plus numbers (R,)."""
    last = network.nodes[network.output]
    assert isinstance(last, Affine)

    def some(values: np.ndarray | None) -> np.ndarray:
        return np.zeros(len(outputs)) if values is None else np.asarray(values).reshape(-1)[outputs]

    rows = [term.operator.rows(outputs, np.zeros(0)).reshape(len(outputs), -1) for term in last.terms]
    terms = tuple(Term(term.source, Dense(own)) for term, own in zip(last.terms, rows, strict=True))
    doubt = None if last.error_bound is None else some(last.error_bound)
    moved = Affine((len(outputs),), terms, some(last.bias) + by, doubt)
    return Network((*network.nodes[: network.output], moved), network.output, input_name=network.input_name)
