"""Intermediate bounds over a part of the box only: multipliers for domain clipping (`mipverify.proof.clipping`)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mipverify.network import Network, Relu, sources
from mipverify.proof.backward import propagate_backward
from mipverify.proof.bounds import Bounds
from mipverify.proof.clipping import Clipped, Planes, confine
from mipverify.proof.interval import tighten
from mipverify.proof.rows import LinearBounds, unit_rows

ROWS = 512  # units whose planes are made together: they stay in the cache
COORDINATES = 100  # of the input, by which multipliers are found
STEPS, STEP, DECAY = 10, 0.3, 0.85  # of their ascent, in parts of a row's extent by that of the plane
MEAN, SQUARE = 0.8, 0.9


def clip(
    bounds: Bounds,
    low: LinearBounds,
    level: float,
    split: Sequence[LinearBounds],
    wanted: Mapping[int, np.ndarray] | None = None,
) -> Bounds:
    """Bounds of what ReLUs read, for the inputs of each entry (K) at which its row `low` is at most `level`.

    All have the same input box (batch 1): they differ in bounds of hidden units only. split: linear bounds of units
    that were split, negated where active (`confine`). wanted: by ReLU node, a mask (K, size) of the units to work on;
    all by default. A unit may end up with its lower bound above its upper one: there is no such input then. Layers are
    worked on in order, so that later ones see the bounds of earlier ones.
    """
    network, count = bounds.network, bounds.batch
    bounds, planes = confine(bounds, low, level, split)
    root = bounds if bounds.within is None else bounds.within
    clipped = Clipped.of(bounds, planes)
    search = _Search.of(clipped)
    for relu in network.relus:
        source = network.relu_source(relu)
        size = int(np.prod(network.nodes[source].shape))
        open_ = np.broadcast_to(np.asarray(bounds.unstable(source)).reshape(-1, size), (count, size))
        entries, units = np.nonzero(open_ & wanted[relu] if wanted is not None and relu in wanted else open_)
        if not len(units):
            continue
        every = np.arange(size)
        shared = search.rows(_linear(root, source, every, None)) if _of_input_only(network, source) else None
        begin = np.searchsorted(entries, np.arange(count + 1))
        boxes, facts = np.flatnonzero(np.diff(begin)), []
        # A few entries at a time: their rows stay in the cache.
        for some in np.split(boxes, np.flatnonzero(np.diff(begin[boxes + 1] // ROWS)) + 1):
            here = slice(begin[some[0]], begin[some[-1] + 1])
            entry, unit = np.tile(entries[here], 2), np.tile(units[here], 2)
            side = np.repeat([0, 1], here.stop - here.start)
            order = np.argsort(entry, kind="stable")
            entry, unit, side = entry[order], unit[order], side[order]
            if shared is not None:
                own, rows = shared, unit + side * size
            else:  # the planes of units differ from entry to entry
                signs = np.where(side == 0, 1.0, -1.0)
                own, rows = search.rows(_linear(bounds, source, unit, entry, signs)), np.arange(len(unit))
            facts.append(clipped.minimum(own.linear, rows, entry, search.multipliers(own, rows, entry)))
        bounds = tighten(bounds, facts, further=False)
    return bounds


def _linear(
    bounds: Bounds, node: int, units: np.ndarray, samples: np.ndarray | None, signs: np.ndarray | None = None
) -> LinearBounds:
    """Linear bounds of units times signs, or, without signs, of all units and behind them of all negated ones."""
    rows = unit_rows(bounds.network, node, units, samples, bounds.like)
    return propagate_backward(bounds, rows.with_negated() if signs is None else rows.scaled(signs))


def _of_input_only(network: Network, node: int) -> bool:
    """Whether a node's value is an affine function of the input."""
    current = network.nodes[node]
    return not isinstance(current, Relu) and all(_of_input_only(network, s) for s in sources(current))


@dataclass(frozen=True, eq=False)
class _Rows:
    """Linear bounds (R,), with the extent |v| . radius of each, and its coefficients in parts of that at the
    coordinates by which multipliers are found, (R, m) float32."""

    linear: LinearBounds
    extent: np.ndarray
    surrogate: np.ndarray


@dataclass(frozen=True, eq=False)
class _Search:
    """What the search for multipliers uses of planes.

    extent: |a| . radius of each plane; middle: its value at the center in parts of the extent (P,). some: coordinates
    (m,) that the search looks at; surrogate: the planes there, and reach: these times radius, which stands for all
    coordinates, both (P, m) float32 and in parts of the extent.
    """

    clipped: Clipped
    planes: Planes
    extent: np.ndarray
    middle: np.ndarray
    some: np.ndarray
    surrogate: np.ndarray
    reach: np.ndarray

    @staticmethod
    def of(clipped: Clipped) -> _Search:
        planes, center, radius = clipped.planes, clipped.center, clipped.radius
        a, tiny = planes.a, np.finfo(float).tiny
        extent = np.maximum(np.abs(a) @ radius, tiny)
        # Every so-many-th in the order of their weight: a sample in which heavy and light ones have their share.
        order = np.argsort(-np.abs(a).mean(axis=0) * radius, kind="stable")
        some = order[:: max(1, len(order) // COORDINATES)]
        scaled = a[:, some] / extent[:, None]
        reach = scaled * radius[some]
        reach = reach / np.maximum(np.abs(reach).sum(axis=1, keepdims=True), tiny)
        with np.errstate(over="ignore"):  # planes that hardly depend on the input; what comes of them is not finite
            middle = np.clip((a @ center + planes.constant) / extent, -1e6, 1e6)  # beyond 1 the plane is on one side
            scaled, reach, middle = (v.astype(np.float32) for v in (scaled, reach, middle))
        return _Search(clipped, planes, extent, middle, some, scaled, reach)

    def rows(self, linear: LinearBounds) -> _Rows:
        """What the search uses of linear bounds."""
        v = linear.coefficients.reshape(len(linear.constant), -1)
        extent = np.maximum(np.abs(v) @ self.clipped.radius, np.finfo(float).tiny)
        with np.errstate(over="ignore", invalid="ignore"):
            surrogate = (v[:, self.some] / extent[:, None]).astype(np.float32)
        return _Rows(linear, extent, surrogate)

    def multipliers(self, own: _Rows, rows: np.ndarray, entries: np.ndarray) -> np.ndarray:
        """Good multipliers (R, most planes) for some rows (R,) in entries (R,), ascending."""
        extent, surrogate = own.extent[rows], own.surrogate[rows]
        present, first = np.unique(entries, return_index=True)
        ends = [*first.tolist(), len(entries)]
        parts = [slice(begin, end) for begin, end in itertools.pairwise(ends)]
        owns = [slice(self.clipped.begin[k], self.clipped.begin[k + 1]) for k in present.tolist()]
        with np.errstate(over="ignore", invalid="ignore"):
            mu = self._ascend(surrogate, parts, owns).astype(np.float64)
            for part, planes in zip(parts, owns, strict=True):
                mu[part, : planes.stop - planes.start] *= extent[part][:, None] / self.extent[planes]
        return np.nan_to_num(mu, posinf=0.0)

    def _ascend(self, v: np.ndarray, parts: list[slice], owns: list[slice]) -> np.ndarray:
        """Good multipliers (R, planes) for rows (R, m), both in parts of their extents: ascent by Adam.

        parts, owns: the rows of each box, and its planes. Boxes with fewer planes than others have zeros instead.
        """
        most = max(own.stop - own.start for own in owns)
        mu = np.zeros((len(v), most), np.float32)
        mean, square, gradient, highest = (np.zeros_like(mu) for _ in range(4))
        together, positive = np.empty_like(v), np.empty_like(v)
        forward, backward = [], []  # arrays of each box: it costs more to look them up than to multiply them
        for part, own in zip(parts, owns, strict=True):
            scaled, reach = np.zeros((2, most, v.shape[1]), np.float32)
            scaled[: own.stop - own.start], reach[: own.stop - own.start] = self.surrogate[own], self.reach[own]
            highest[part, : own.stop - own.start] = self.middle[own] + self.reach[own].sum(axis=1)
            forward.append((mu[part], scaled, together[part]))
            backward.append((positive[part], np.ascontiguousarray(2 * reach.T), gradient[part]))
        for step in range(1, STEPS + 1):
            for multipliers, planes, out in forward:
                np.matmul(multipliers, planes, out=out)
            together += v
            np.greater(together, 0, out=positive)
            for ends, reaches, out in backward:
                np.matmul(ends, reaches, out=out)
            np.subtract(highest, gradient, out=gradient)  # the planes at the minimizer
            mean *= MEAN
            mean += (1 - MEAN) * gradient
            square *= SQUARE
            square += (1 - SQUARE) * gradient * gradient
            length = STEP * DECAY ** (step - 1) / (1 - MEAN**step)
            mu += length * mean / (np.sqrt(square / (1 - SQUARE**step)) + 1e-8)
            np.maximum(mu, 0, out=mu)
        return mu
