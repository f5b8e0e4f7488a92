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

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from mipverify.presolve.backward import InputRows, Relaxed, pass_back, unit_rows
from mipverify.presolve.bounds import Bounds
from mipverify.presolve.crown import negated
from mipverify.presolve.rounding import SLACK, ball, floor, gamma

from mipverify.network import Network, Relu, sources

ROWS = 2048  # planes of hidden units that are made together
COORDINATES = 200  # of the input, by which multipliers are found
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

    def of_boxes(self, boxes: np.ndarray) -> Planes:
        """The planes of some boxes, ascending, which are numbered anew."""
        keep = np.flatnonzero(np.isin(self.box, boxes))
        return Planes(self.a[keep], self.constant[keep], np.searchsorted(boxes, self.box[keep]))


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
        shared = _Rows.of(now, corners, source, np.arange(low.shape[1])) if _of_input_only(network, source) else None
        # Where the planes of units differ from box to box, those of a few boxes are made together.
        some = count if shared is not None else max(1, ROWS * count // len(units))
        for begin in range(0, count, some):
            here = slice(*np.searchsorted(samples, [begin, begin + some]))
            box, unit = samples[here], units[here]
            if shared is not None:
                below, above = shared, -shared
            else:
                below = _Rows.of(now, corners, source, unit, box)
                above = _Rows.of(now, corners, source, unit, box, negative=True)
            # Boxes one by one: their planes differ in number, and the rows of one stay in the cache.
            for k in range(begin, min(count, begin + some)):
                own = slice(*np.searchsorted(box, [k, k + 1]))
                index = unit[own] if shared is not None else own
                low[k, unit[own]] = np.maximum(low[k, unit[own]], corners.least(below, index, k))
                high[k, unit[own]] = np.minimum(high[k, unit[own]], -corners.least(above, index, k))
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
        middle = np.clip((a @ center + planes.constant) / extent, -1e6, 1e6)  # beyond 1 the plane is on one side
        with np.errstate(over="ignore"):  # planes that hardly depend on the input; `least` sees to what comes of them
            thin, reach, middle = (v.astype(np.float32) for v in (thin, reach, middle))
        return _Corners(planes, begin, center, radius, extent, size, middle, some, thin, reach)

    def least(self, rows: _Rows, index: np.ndarray | slice, box: int) -> np.ndarray:
        """Sound lower bounds (U,) of some rows in the part of a box."""
        with np.errstate(over="ignore", invalid="ignore"):  # planes that hardly depend on the input; seen to at the end
            value = self._least(rows, index, slice(self.begin[box], self.begin[box + 1]))
        return np.where(np.isfinite(value), value, -np.inf)

    def _least(self, rows: _Rows, index: np.ndarray | slice, own: slice) -> np.ndarray:
        """What `least` returns, not finite where the arithmetic overflowed."""
        v = rows.v[index]
        mu = self._multipliers(rows.thin[index], own) * (rows.extent[index][:, None] / self.extent[own])
        together = mu @ self.planes.a[own]
        together += v
        value = together @ self.center + rows.constant[index] + mu @ self.planes.constant[own]
        np.abs(together, out=together)
        value = value - together @ self.radius
        terms = 2 * v.shape[1] + 2 * mu.shape[1] + 20
        error = rows.error[index] + gamma(terms, v) * (rows.size[index] + mu @ self.size[own])
        error = error + floor(v) * (1 + np.abs(self.center).sum() + self.radius.sum())
        return np.asarray(value - SLACK * error)

    def _multipliers(self, v: np.ndarray, own: slice) -> np.ndarray:
        """Good multipliers (U, planes) for rows (U, m), both in parts of their extents: ascent by Adam."""
        thin, reach = self.thin[own], np.ascontiguousarray(self.reach[own].T)
        highest = self.middle[own] + reach.sum(axis=0)
        mu = np.zeros((len(v), len(thin)), np.float32)
        mean, square = np.zeros_like(mu), np.zeros_like(mu)
        for step in range(1, STEPS + 1):
            together = mu @ thin
            together += v
            gradient = highest - 2 * ((together > 0).astype(np.float32) @ reach)  # the planes at the minimizer
            mean = MEAN * mean + (1 - MEAN) * gradient
            square = SQUARE * square + (1 - SQUARE) * gradient * gradient
            length = STEP * DECAY ** (step - 1) / (1 - MEAN**step)
            mu = np.maximum(mu + length * mean / (np.sqrt(square / (1 - SQUARE**step)) + 1e-8), 0)
        return mu.astype(np.float64)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Functionals v . x + constant that lie at most `error` above hidden values: v (R, n), the others (R,).

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
        samples: np.ndarray | None = None,
        *,
        negative: bool = False,
    ) -> _Rows:
        rows = unit_rows(relaxed.network, node, units, samples, relaxed.bounds.lower[0])
        reached = pass_back(relaxed, negated(rows) if negative else rows)
        v = reached.coefficients.reshape(len(units), -1)
        extent = np.maximum(np.abs(v) @ corners.radius, np.finfo(float).tiny)
        size = np.abs(v) @ (np.abs(corners.center) + corners.radius) + np.abs(reached.constant)
        with np.errstate(over="ignore"):  # as in `_Corners`
            thin = (v[:, corners.some] / extent[:, None]).astype(np.float32)
        return _Rows(v, reached.constant, SLACK * np.asarray(reached.error), size, extent, thin)

    def __neg__(self) -> _Rows:
        return _Rows(-self.v, -self.constant, self.error, self.size, self.extent, -self.thin)
