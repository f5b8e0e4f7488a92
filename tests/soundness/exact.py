"""Tiny networks with dyadic weights and their exact answers, by enumeration of ReLU phases in rational numbers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense, Identity
from mipverify.specification import Box, Case, Condition, Specification
from mipverify.specification.conditions import Row

# A half-plane a x + b y <= c, and an affine function a x + b y + c, as triples of rationals.
Plane = tuple[Fraction, Fraction, Fraction]
Polygon = list[tuple[Fraction, Fraction]]
# Weights (out, in), bias (out,), and whether the layer's input is added to its ReLU's output.
Frozen = tuple[tuple[tuple[Fraction, ...], ...], tuple[Fraction, ...], bool]


@dataclass
class Layer:
    """Weights (out, in) and bias (out,), rational; `skip`: the layer's input is added to its ReLU's output."""

    weight: list[list[Fraction]]
    bias: list[Fraction]
    skip: bool = False


@dataclass
class Question:
    """A network of two inputs, a box and conditions (conjunctions of rows over the outputs: rows @ y <= offset)."""

    layers: list[Layer]
    box: list[tuple[Fraction, Fraction]]
    conditions: list[list[tuple[list[Fraction], Fraction]]]

    def network(self) -> Network:
        """The same network for the verifier."""
        nodes: list = [Input((2,))]
        for depth, layer in enumerate(self.layers):
            source = len(nodes) - 1
            weight = np.array([[float(v) for v in row] for row in layer.weight], np.float32)
            bias = np.array([float(v) for v in layer.bias], np.float32)
            nodes.append(Affine((len(bias),), (Term(source, Dense(weight)),), bias))
            if depth < len(self.layers) - 1:
                nodes.append(Relu((len(bias),), len(nodes) - 1))
                if layer.skip:
                    same = Identity((len(bias),))
                    nodes.append(Affine((len(bias),), (Term(len(nodes) - 1, same), Term(source, same))))
        return Network(tuple(nodes), len(nodes) - 1)

    def specification(self) -> Specification:
        """The same property for the verifier."""
        outputs = len(self.layers[-1].bias)
        conditions = tuple(
            Condition.from_rows(
                [Row({i: v for i, v in enumerate(row) if v}, {}, offset) for row, offset in rows], 2, outputs
            )
            for rows in self.conditions
        )
        box = Box.from_exact([low for low, _ in self.box], [high for _, high in self.box])
        return Specification((Case(box, conditions),), "vnnlib")

    def violated(self) -> bool:
        """Whether a point of the box meets a condition, exactly."""
        return any(_clipped(region, met) for region, outputs in self._regions() for met in self._met(outputs))

    def smallest_margin(self) -> Fraction | None:
        """The exact minimum of the first condition's only row minus its offset over the box."""
        ((row, offset),) = self.conditions[0]
        best = None
        for region, outputs in self._regions():
            a, b, c = _combine(row, outputs)
            for x, y in region:
                value = a * x + b * y + c - offset
                best = value if best is None else min(best, value)
        return best

    def _met(self, outputs: list[Plane]) -> list[list[Plane]]:
        found = []
        for rows in self.conditions:
            planes = []
            for row, offset in rows:
                a, b, c = _combine(row, outputs)
                planes.append((a, b, offset - c))
            found.append(planes)
        return found

    def _regions(self) -> list[tuple[Polygon, list[Plane]]]:
        layers = tuple((tuple(map(tuple, layer.weight)), tuple(layer.bias), layer.skip) for layer in self.layers)
        return _regions(layers, tuple(self.box))


@lru_cache(maxsize=256)  # the same network is asked about again and again, under other conditions and by other methods
def _regions(
    layers: tuple[Frozen, ...], box: tuple[tuple[Fraction, Fraction], ...]
) -> list[tuple[Polygon, list[Plane]]]:
    """The region of every phase pattern that occurs in the box, with the outputs as affine functions there."""
    one, zero = Fraction(1), Fraction(0)
    (x0, x1), (y0, y1) = box
    states: list[tuple[Polygon, list[Plane]]] = [
        ([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], [(one, zero, zero), (zero, one, zero)])
    ]
    for depth, (weight, biases, skip) in enumerate(layers):
        after = []
        for region, values in states:
            pre = [_combine(row, values, bias) for row, bias in zip(weight, biases, strict=True)]
            if depth == len(layers) - 1:
                after.append((region, pre))
                continue
            for phases in itertools.product((False, True), repeat=len(pre)):
                planes = [(-a, -b, c) if on else (a, b, -c) for (a, b, c), on in zip(pre, phases, strict=True)]
                inside = _clipped(region, planes)
                if not inside:
                    continue
                post = [p if on else (zero, zero, zero) for p, on in zip(pre, phases, strict=True)]
                if skip:
                    post = [tuple(s + t for s, t in zip(p, v, strict=True)) for p, v in zip(post, values, strict=True)]
                after.append((inside, post))
        states = after
    return states


def _combine(row: Sequence[Fraction], values: list[Plane], constant: Fraction = Fraction(0)) -> Plane:
    a = sum((w * v[0] for w, v in zip(row, values, strict=True)), Fraction(0))
    b = sum((w * v[1] for w, v in zip(row, values, strict=True)), Fraction(0))
    c = sum((w * v[2] for w, v in zip(row, values, strict=True)), constant)
    return a, b, c


def _clipped(polygon: Polygon, planes: Sequence[Plane]) -> Polygon:
    """Vertices of what half-planes leave of a polygon, clipped one by one; empty where nothing is left."""
    for a, b, c in planes:
        clipped = []
        sides = [c - a * x - b * y for x, y in polygon]
        for k, point in enumerate(polygon):
            here, there, other = sides[k], sides[(k + 1) % len(polygon)], polygon[(k + 1) % len(polygon)]
            if here >= 0:
                clipped.append(point)
            if (here > 0 > there) or (here < 0 < there):
                t = here / (here - there)
                clipped.append((point[0] + t * (other[0] - point[0]), point[1] + t * (other[1] - point[1])))
        polygon = clipped
        if not polygon:
            return []
    return polygon


def random_question(rng: np.random.Generator) -> Question:
    """One to three hidden layers of two or three units, some with a skip, weights in quarters, now and then a tie."""

    def quarters(*shape: int, scale: int = 8) -> list:
        values = rng.integers(-scale, scale + 1, size=shape)
        return [[Fraction(int(v), 4) for v in row] for row in np.atleast_2d(values)]

    widths = [2, *(int(w) for w in rng.integers(2, 4, size=rng.integers(1, 4)))]
    layers = []
    for before, after in itertools.pairwise(widths):
        skip = before == after and rng.random() < 0.4
        layers.append(Layer(quarters(after, before), quarters(1, after, scale=4)[0], skip))
    outputs = int(rng.integers(1, 4))
    layers.append(Layer(quarters(outputs, widths[-1]), quarters(1, outputs)[0]))
    box = []
    for _ in range(2):
        low = Fraction(int(rng.integers(-8, 8)), 4)
        box.append((low, low + Fraction(int(rng.integers(1, 9)), 4)))
    conditions = []
    for _ in range(rng.integers(1, 3)):
        rows = [(quarters(1, outputs)[0], Fraction(int(rng.integers(-40, 1)), 4)) for _ in range(rng.integers(1, 4))]
        conditions.append(rows)
    question = Question(layers, box, conditions)
    if rng.random() < 0.5:  # move the first condition to the edge: margins of zero and of 2**-12 tell most
        question.conditions = [[question.conditions[0][0]]]
        margin = question.smallest_margin()
        assert margin is not None
        row, offset = question.conditions[0][0]
        shift = margin - rng.choice([Fraction(0), Fraction(1, 4096), Fraction(-1, 4096), Fraction(1, 2)])
        if Fraction(float(offset + shift)) == offset + shift:
            question.conditions = [[(row, offset + shift)]]
    return question
