"""Input sets of every kind, with an exact account of which points belong to them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import scipy.sparse as sp

from mipverify.specification.norms import L1, L2, BallNorm
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.sets import Box, Constrained, Image, InputSet, Product

Exact = list[Fraction]


@dataclass(frozen=True)
class Sample:
    """A set, whether a rational point belongs to it as it was stated, and whether minima over it are exact."""

    inputs: InputSet
    belongs: Callable[[Exact], bool]
    tight: bool = True


def box(rng: np.random.Generator, n: int = 3) -> Sample:
    """Decimal bounds, which no float is equal to."""
    low = [Fraction(int(v), 1000) for v in rng.integers(-900, 0, n)]
    high = [v + Fraction(int(w), 1000) for v, w in zip(low, rng.integers(1, 1500, n), strict=True)]

    def belongs(x: Exact) -> bool:
        return all(a <= v <= b for a, v, b in zip(low, x, high, strict=True))

    return Sample(Box.from_exact(low, high), belongs)


def ball(norm: BallNorm) -> Callable[[np.random.Generator], Sample]:
    """A decimal radius and scales, some of them 0, in a domain that cuts it."""

    def make(rng: np.random.Generator, n: int = 4) -> Sample:
        center = np.round(rng.uniform(0, 1, n), 3).astype(np.float32).astype(np.float64)
        scale = rng.choice([0.0, 0.5, 1.0, 1.75], n)
        radius = Fraction(int(rng.integers(1, 900)), 1000)
        around = Perturbation.around(center, norm=norm.name, scale=scale, domain=("-0.1", "1.1"))

        def belongs(x: Exact) -> bool:
            steps = [abs(v - Fraction(float(c))) for v, c in zip(x, center, strict=True)]
            if any(step and not s for step, s in zip(steps, scale, strict=True)):
                return False
            scaled = [step / Fraction(float(s)) for step, s in zip(steps, scale, strict=True) if s]
            inside = all(Fraction("-0.1") <= v <= Fraction("1.1") for v in x)
            return inside and (sum(scaled) <= radius if norm == L1() else sum(s * s for s in scaled) <= radius**2)

        return Sample(around.within(radius), belongs)

    return make


def normalized(rng: np.random.Generator) -> Sample:
    """A ball whose center and scale are no floats: that of pixels, seen by a network that divides by 0.3."""
    image, radius = (
        rng.integers(0, 256, 3).astype(np.float32) / np.float32(255),
        Fraction(int(rng.integers(1, 99)), 255),
    )
    inputs = Perturbation.around(image, norm="l2", mean="0.1", std="0.3").within(radius)

    def belongs(z: Exact) -> bool:
        pixels = [v * Fraction("0.3") + Fraction("0.1") for v in z]
        steps = [v - Fraction(float(p)) for v, p in zip(pixels, image, strict=True)]
        return all(0 <= v <= 1 for v in pixels) and sum(s * s for s in steps) <= radius**2

    return Sample(inputs, belongs, tight=False)


def constrained(make: Callable[[np.random.Generator], Sample], rows: int) -> Callable[[np.random.Generator], Sample]:
    """Inequalities that cut off the middle of the set, at times."""

    def build(rng: np.random.Generator) -> Sample:
        inner = make(rng)
        matrix = np.round(rng.normal(size=(rows, inner.inputs.size)), 2)
        inside = inner.inputs.nearest_float32(rng.uniform(-1, 1, (1, inner.inputs.size)))[0].astype(np.float64)
        offset = matrix @ inside + rng.uniform(0.02, 0.2, rows)

        def belongs(x: Exact) -> bool:
            sums = (sum(Fraction(float(c)) * v for c, v in zip(row, x, strict=True)) for row in matrix)
            return inner.belongs(x) and all(s <= Fraction(float(h)) for s, h in zip(sums, offset, strict=True))

        tight = isinstance(inner.inputs, Box) and rows == 1
        return Sample(Constrained(inner.inputs, matrix, offset), belongs, tight)

    return build


def product(*makers: Callable[[np.random.Generator], Sample]) -> Callable[[np.random.Generator], Sample]:
    def build(rng: np.random.Generator) -> Sample:
        parts = [make(rng) for make in makers]
        ends = list(itertools.accumulate((part.inputs.size for part in parts), initial=0))

        def belongs(x: Exact) -> bool:
            return all(part.belongs(x[a:b]) for part, (a, b) in zip(parts, itertools.pairwise(ends), strict=True))

        return Sample(Product(tuple(part.inputs for part in parts)), belongs, all(part.tight for part in parts))

    return build


def image(make: Callable[[np.random.Generator], Sample]) -> Callable[[np.random.Generator], Sample]:
    def build(rng: np.random.Generator) -> Sample:
        inner = make(rng)
        matrix = sp.csr_array(rng.normal(size=(7, inner.inputs.size)))
        inputs = Image(inner.inputs, matrix, rng.normal(size=7), (0.0, 1.0))
        return Sample(inputs, inner.belongs, inner.tight)

    return build


KINDS: dict[str, Callable[[np.random.Generator], Sample]] = {
    "box": box,
    "l1": ball(L1()),
    "l2": ball(L2()),
    "normalized l2": normalized,
    "polytope": constrained(box, 1),
    "polytope of three": constrained(box, 3),
    "cut l1": constrained(ball(L1()), 1),
    "cut l2": constrained(ball(L2()), 2),
    "image of a polytope": image(constrained(box, 1)),
    "boxes": product(box, box),
    "box and l2": product(box, ball(L2())),
    "polytope and l1 and product": product(constrained(box, 1), ball(L1()), product(box, ball(L2()))),
}
EVERY = pytest.mark.parametrize("kind", KINDS)
SEEDS = range(3)


@cache
def samples(kind: str) -> list[tuple[Sample, np.random.Generator]]:
    return [(KINDS[kind](rng), rng) for rng in map(np.random.default_rng, SEEDS)]


def exact(x: np.ndarray) -> Exact:
    return [Fraction(v) for v in x.tolist()]


def around(inputs: InputSet, rng: np.random.Generator, count: int = 80) -> np.ndarray:
    """Float32 points in and around the box of a set, many on its faces or a step beyond them."""
    low, high = inputs.box.float32_lower, inputs.box.float32_upper
    share = rng.choice([0.0, 0.5, 1.0, np.nan], (count, inputs.size))
    x = low + np.where(np.isnan(share), rng.uniform(-0.1, 1.1, share.shape), share) * (high - low)
    x = np.where(rng.random(x.shape) < 0.3, inputs.center, x).astype(np.float32)
    moved = np.nextafter(x, np.where(rng.random(x.shape) < 0.5, np.float32(-9), np.float32(9)))
    return np.where(rng.random(x.shape) < 0.2, moved, x).astype(np.float32)


def members(sample: Sample, rng: np.random.Generator) -> np.ndarray:
    """Float32 points that belong to the set exactly, among them some at its surface."""
    tried = np.concatenate([around(sample.inputs, rng), sample.inputs.nearest_float32(around(sample.inputs, rng))])
    found = np.array([x for x in tried if sample.belongs(exact(x))])
    assert len(found) > 5
    return found
