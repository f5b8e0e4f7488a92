"""Hidden bounds that hold in a part of the box only: where linear functions of the input are not positive.

A proof that a row is above a level may forget the inputs at which it is above anyway. The row's relaxation ends in a
plane below it; where the plane is above the level, nothing is left to show. The other inputs fill a corner of the box,
the smaller the closer the row's bound is to the level, and over that corner hidden units vary less. The same goes for
the planes below a unit that was split. For a functional v . x and planes A x + c <= 0,

    min v . x  >=  min over the box of (v + mu A) . x + mu . c    for all mu >= 0,

whatever the search for good mu comes to [as in Zhou et al. 2025, Clip-and-Verify, section 3; for one plane and single
variables this is the tightening by reduced costs of integer programming].
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mipverify.network import Network, Relu, sources
from mipverify.proof.backward import Relaxed, pass_back
from mipverify.proof.bounds import Bounds
from mipverify.proof.rounding import SLACK, ball, floor, gamma
from mipverify.proof.rows import InputRows, unit_rows

ROWS = 512  # units whose planes are made together: they stay in the cache
COORDINATES = 100  # of the input, by which multipliers are found
STEPS, STEP, DECAY = 10, 0.3, 0.85  # of their ascent, in parts of a row's extent by that of the plane
MEAN, SQUARE = 0.8, 0.9


@dataclass(frozen=True, eq=False)
class Planes:
    """Functions a . x + constant of the input, not positive where bounds are asked for: a (P, n), constant (P,).

    box: the box of each, (P,), ascending.
    """

    a: np.ndarray
    constant: np.ndarray
    box: np.ndarray

    @staticmethod
    def below(rows: InputRows, box: np.ndarray, level: float = 0.0) -> Planes:
        """Planes below rows that are at most `level` where bounds are asked for."""
        a, error = rows.coefficients.reshape(len(box), -1), SLACK * np.asarray(rows.error)
        size = np.abs(rows.constant) + error + abs(level)
        return Planes(a, rows.constant - error - level - gamma(8, a) * size - floor(a), box)

    def join(self, other: Planes) -> Planes:
        """The planes of both, by box."""
        box = np.concatenate([self.box, other.box])
        order = np.argsort(box, kind="stable")
        a, constant = np.concatenate([self.a, other.a]), np.concatenate([self.constant, other.constant])
        return Planes(a[order], constant[order], box[order])


def clip(relaxed: Relaxed, planes: Planes, wanted: Mapping[int, np.ndarray] | None = None) -> Bounds:
    """Bounds of what ReLUs read, for the inputs of each box (K) at which none of its planes is positive.

    All have the same input box (batch 1): they differ in bounds of hidden units only. wanted: by ReLU node, a mask
    (K, size) of the units to work on; all by default. An entry may end up with its lower bound above its upper one:
    there is no such input then. Layers are worked on in order, so that later ones see the bounds of earlier ones.
    """
    bounds, network = relaxed.bounds, relaxed.network
    corners = _Corners.of(relaxed, planes)
    count = len(corners.begin) - 1
    lower, upper = list(bounds.lower), list(bounds.upper)
    for relu in network.relus:
        source = network.relu_source(relu)
        shape = (count, *lower[source].shape[1:])
        low, high = (np.broadcast_to(side[source], shape).reshape(count, -1).copy() for side in (lower, upper))
        open_ = (low < 0) & (high > 0)
        samples, units = np.nonzero(open_ & wanted[relu] if wanted is not None and relu in wanted else open_)
        if not len(units):
            continue
        now = Relaxed(Bounds(network, tuple(lower), tuple(upper), bounds.region), relaxed)
        every = np.arange(low.shape[1])
        shared = _Rows.of(now, corners, source, *_both_sides(every)) if _of_input_only(network, source) else None
        begin = np.searchsorted(samples, np.arange(count + 1))
        boxes = np.flatnonzero(np.diff(begin))
        # A few boxes at a time: their rows stay in the cache.
        for some in np.split(boxes, np.flatnonzero(np.diff(begin[boxes + 1] // ROWS)) + 1):
            here = slice(begin[some[0]], begin[some[-1] + 1])
            box, unit = samples[here], units[here]
            both, sides = _both_sides(unit)
            order = np.argsort(np.tile(box, 2), kind="stable")
            both, sides, boxes_of = both[order], sides[order], np.tile(box, 2)[order]
            if shared is not None:
                rows = shared.pick(np.where(sides > 0, both, both + len(every)))
            else:  # the planes of units differ from box to box
                rows = _Rows.of(now, corners, source, both, sides, boxes_of)
            least = np.empty(len(both))
            least[order] = corners.least(rows, boxes_of)
            low[box, unit] = np.maximum(low[box, unit], least[: len(unit)])
            high[box, unit] = np.minimum(high[box, unit], -least[len(unit) :])
        lower[source], upper[source] = low.reshape(shape), high.reshape(shape)
    return Bounds(network, tuple(lower), tuple(upper), bounds.region)


def _of_input_only(network: Network, node: int) -> bool:
    """Whether a node's value is an affine function of the input."""
    current = network.nodes[node]
    return not isinstance(current, Relu) and all(_of_input_only(network, s) for s in sources(current))


@dataclass(frozen=True, eq=False)
class _Corners:
    """The part of the input box that planes leave, and what the search for multipliers uses of them.

    begin: where the planes of each box begin, (K + 1,). center, radius: of the input box (n,). extent: |a| . radius of
    each plane; size: |a| . magnitude + |constant|; middle: its value at the center in parts of the extent (P,). some:
    coordinates (m,) that the search looks at; thin: the planes there, and reach: thin times radius, which stands for
    all coordinates, both (P, m) float32 and in parts of the extent.
    """

    planes: Planes
    begin: np.ndarray
    center: np.ndarray
    radius: np.ndarray
    extent: np.ndarray
    size: np.ndarray
    middle: np.ndarray
    some: np.ndarray
    thin: np.ndarray
    reach: np.ndarray

    @staticmethod
    def of(relaxed: Relaxed, planes: Planes) -> _Corners:
        low, high = (side[0].reshape(-1).astype(np.float64) for side in (relaxed.bounds.lower, relaxed.bounds.upper))
        center, radius = ball(low, high)
        a, tiny = planes.a, np.finfo(float).tiny
        extent = np.maximum(np.abs(a) @ radius, tiny)
        size = np.abs(a) @ (np.abs(center) + radius) + np.abs(planes.constant)
        # Every so-many-th in the order of their weight: a sample in which heavy and light ones have their share.
        order = np.argsort(-np.abs(a).mean(axis=0) * radius, kind="stable")
        some = order[:: max(1, len(order) // COORDINATES)]
        thin = a[:, some] / extent[:, None]
        reach = thin * radius[some]
        reach = reach / np.maximum(np.abs(reach).sum(axis=1, keepdims=True), tiny)
        count = max(relaxed.bounds.batch, int(planes.box.max(initial=0)) + 1)
        begin = np.searchsorted(planes.box, np.arange(count + 1))
        with np.errstate(over="ignore"):  # planes that hardly depend on the input; `least` sees to what comes of them
            middle = np.clip((a @ center + planes.constant) / extent, -1e6, 1e6)  # beyond 1 the plane is on one side
            thin, reach, middle = (v.astype(np.float32) for v in (thin, reach, middle))
        return _Corners(planes, begin, center, radius, extent, size, middle, some, thin, reach)

    def least(self, rows: _Rows, box: np.ndarray) -> np.ndarray:
        """Sound lower bounds (R,) of rows in the parts of their boxes (R,), ascending."""
        boxes, first = np.unique(box, return_index=True)
        parts = [slice(*ends) for ends in itertools.pairwise([*first.tolist(), len(box)])]
        owns = [slice(self.begin[k], self.begin[k + 1]) for k in boxes.tolist()]
        value = np.empty(len(box))
        with np.errstate(over="ignore", invalid="ignore"):  # planes that hardly depend on the input; seen to at the end
            mu = self._multipliers(rows.thin, parts, owns)
            for part, own in zip(parts, owns, strict=True):
                value[part] = self._value(rows, part, own, mu[part, : own.stop - own.start])
        return np.where(np.isfinite(value), value, -np.inf)

    def _value(self, rows: _Rows, part: slice, own: slice, mu: np.ndarray) -> np.ndarray:
        """The bounds that multipliers (U, planes) give, in parts of extents; not finite where arithmetic overflowed."""
        v = rows.v[part]
        mu = mu.astype(np.float64) * (rows.extent[part][:, None] / self.extent[own])
        together = mu @ self.planes.a[own]
        together += v
        value = together @ self.center + rows.constant[part] + mu @ self.planes.constant[own]
        np.abs(together, out=together)
        value = value - together @ self.radius
        terms = 2 * v.shape[1] + 2 * mu.shape[1] + 20
        error = rows.error[part] + gamma(terms, v) * (rows.size[part] + mu @ self.size[own])
        error = error + floor(v) * (1 + np.abs(self.center).sum() + self.radius.sum())
        return np.asarray(value - SLACK * error)

    def _multipliers(self, v: np.ndarray, parts: list[slice], owns: list[slice]) -> np.ndarray:
        """Good multipliers (R, planes) for rows (R, m), both in parts of their extents: ascent by Adam.

        parts, owns: the rows of each box, and its planes. Boxes with fewer planes than others have zeros instead.
        """
        most = max(own.stop - own.start for own in owns)
        mu = np.zeros((len(v), most), np.float32)
        mean, square, gradient, highest = (np.zeros_like(mu) for _ in range(4))
        together, positive = np.empty_like(v), np.empty_like(v)
        forward, backward = [], []  # arrays of each box: it costs more to look them up than to multiply them
        for part, own in zip(parts, owns, strict=True):
            thin, reach = np.zeros((2, most, v.shape[1]), np.float32)
            thin[: own.stop - own.start], reach[: own.stop - own.start] = self.thin[own], self.reach[own]
            highest[part, : own.stop - own.start] = self.middle[own] + self.reach[own].sum(axis=1)
            forward.append((mu[part], thin, together[part]))
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


def _both_sides(units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Units twice, and the signs of the rows that bound them from below and, behind these, from above."""
    return np.tile(units, 2), np.repeat([1.0, -1.0], len(units))


@dataclass(frozen=True, eq=False)
class _Rows:
    """Functionals v . x + constant that lie at most `error` above hidden values or their negatives: v (R, n), the
    others (R,).

    size: |v| . magnitude + |constant|, which rounding errors are relative to. extent: |v| . radius. thin: v at the
    coordinates by which multipliers are found, in parts of the extent, in float32.
    """

    v: np.ndarray
    constant: np.ndarray
    error: np.ndarray
    size: np.ndarray
    extent: np.ndarray
    thin: np.ndarray

    @staticmethod
    def of(
        relaxed: Relaxed,
        corners: _Corners,
        node: int,
        units: np.ndarray,
        sides: np.ndarray,
        samples: np.ndarray | None = None,
    ) -> _Rows:
        rows = unit_rows(relaxed.network, node, units, samples, relaxed.bounds.lower[0])
        reached = pass_back(relaxed, rows.scaled(sides))
        v = reached.coefficients.reshape(len(units), -1)
        extent = np.maximum(np.abs(v) @ corners.radius, np.finfo(float).tiny)
        size = np.abs(v) @ (np.abs(corners.center) + corners.radius) + np.abs(reached.constant)
        with np.errstate(over="ignore"):  # as in `_Corners`
            thin = (v[:, corners.some] / extent[:, None]).astype(np.float32)
        return _Rows(v, reached.constant, SLACK * np.asarray(reached.error), size, extent, thin)

    def pick(self, rows: np.ndarray) -> _Rows:
        """Some of the rows."""
        return _Rows(*(array[rows] for array in vars(self).values()))
