"""Semidefinite bounds of rows over one layer of ReLUs: signs are relaxed to unit vectors.

Over a box x = center + radius y, |y_i| <= 1, let a row be l . x + k + sum_j c_j relu(z_j) with z = W x + m. Units with
c_j >= 0 are convex, and lines below them lose nothing. For the others relu(z) = (z + |z|) / 2, and what they and all
linear terms take away is at most

    max  sum_j v_j q_j z_j(y) - g . y   over |y_i| <= 1 and signs q_j,

a problem like that of a maximum cut. Its relaxation puts unit vectors in the place of all y_i and q_j and of the number
1 [Goemans and Williamson 1995; for networks Raghunathan et al. 2018, Certified Defenses, section 3]. Where triangles
add up the worst of each unit, this knows that an input in the middle of the box has all its z small at once.

Vectors of low rank are improved in turn, which takes nothing but products with W [Burer and Monteiro 2003; Wang, Chang
and Kolter 2017, The Mixing Method]. Their lengths, before they are made units, are dual variables alpha (of inputs) and
beta (of signs, and of 1). Whatever these are: if  diag(beta) - C - B diag(1 / alpha) B'  is positive semidefinite, B
and C being the coefficients of products of signs with inputs and among themselves, the maximum is at most
(sum alpha + sum beta) / 2, for it is a sum of squares away from that. A Cholesky decomposition proves this, with all
rounding errors accounted for [Rump 2006, Verification of positive definiteness].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mipverify.presolve.ascent import Adam

from mipverify.proof.bounds import Bounds
from mipverify.proof.reduction import Exact, affine_rows
from mipverify.proof.rounding import SLACK, ball, floor, gamma

RANK = 8  # of the vectors
DECAY = 0.96  # of the steps of lines
BEYOND = 0.7  # of the way to its new place that a sign's vector is taken past it: fewer rounds are needed so
POLISH = 6  # last rounds, in which lines stay as they are and vectors settle
LEAST = 1e-4  # of their mean: smaller dual variables are raised to it, since others are divided by them


@dataclass(frozen=True, eq=False)
class Shallow:
    """Rows linear . x + constant + coefficients . relu(weights x + bias) over a box.

    weights (U, n), bias, uncertainty, lower, upper (U,): of the unstable units; what they stand for may be off by
    their uncertainty. linear (R, n), coefficients (R, U), constant, doubt (R,): of the rows; likewise. center, radius
    (n,): of the box. relu: the node of the units; units (U,): their places there, ascending.
    """

    weights: np.ndarray
    bias: np.ndarray
    uncertainty: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    linear: np.ndarray
    coefficients: np.ndarray
    constant: np.ndarray
    doubt: np.ndarray
    center: np.ndarray
    radius: np.ndarray
    relu: int
    units: np.ndarray

    @staticmethod
    def of(bounds: Bounds) -> Shallow | None:
        """The outputs of a network within bounds (batch 1).

        None unless the unstable units belong to one ReLU node, or if a bound is not finite.
        """
        # Rows pass through stable units (`Exact`): only the others are units of their own.
        network, exact = bounds.network, Exact(bounds)
        unstable = {relu: np.flatnonzero(np.asarray(bounds.unstable(relu)).reshape(-1)) for relu in network.relus}
        layers = [(relu, units) for relu, units in unstable.items() if len(units)]
        if len(layers) != 1 or not bounds.finite().all():
            return None
        ((relu, units),) = layers
        source = network.relu_source(relu)
        lower, upper = (side[source].reshape(-1)[units] for side in (bounds.lower, bounds.upper))
        outputs = np.arange(network.output_size)
        rows, constant, doubt = affine_rows(exact, network.output, outputs, layers)
        linear, coefficients = np.split(rows, [network.input_size], axis=1)
        box = ball(bounds.lower[0].reshape(-1), bounds.upper[0].reshape(-1))
        hidden = affine_rows(exact, source, units, [])
        return Shallow(*hidden, lower, upper, linear, coefficients, constant, doubt, *box, relu, units)


@dataclass(frozen=True, eq=False)
class Vectors:
    """Where the search stands, for some problems (K).

    lines (K, U): for units with c >= 0 the slope of their line in [0, 1]; for the others the share in [0, 1] of |z|
    that the chord above it covers; for units whose sign is known its multiplier, in parts of the mean coefficient of
    the row. signs (K, U, RANK) and one (K, RANK): unit vectors in the place of signs and of the number 1.
    """

    lines: np.ndarray
    signs: np.ndarray
    one: np.ndarray

    def of(self, problem: int) -> Vectors:
        """Those of one problem, without the first axis; copies, which do not keep the others alive."""
        return Vectors(self.lines[problem].copy(), self.signs[problem].copy(), self.one[problem].copy())

    @staticmethod
    def stack(several: Sequence[Vectors]) -> Vectors:
        """Those of single problems together."""
        lines, signs, one = zip(*((v.lines, v.signs, v.one) for v in several), strict=True)
        return Vectors(np.stack(lines), np.stack(signs), np.stack(one))


@dataclass(frozen=True, eq=False)
class Lifted:
    """What the search came to, for each problem (K).

    lower: sound bounds (K,). vectors: with which the search goes on. minimizer (K, n): inputs that the relaxation holds
    for the worst. gap (K, U): by how much it holds the |z| of units without a known sign for too large, times v.
    alpha (K, n), beta (K, U + 1): the dual variables; the last one is that of the number 1.
    """

    lower: np.ndarray
    vectors: Vectors
    minimizer: np.ndarray
    gap: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray


class Lifting:
    """The semidefinite relaxation of a shallow network, for any of its rows and any known signs of units."""

    def __init__(self, shallow: Shallow):
        self.shallow = shallow
        low, high = shallow.lower, shallow.upper
        # |z| <= slope z + offset between low and high: a convex function lies below its values at the ends.
        ends = np.abs(low), np.abs(high)
        self.slope = np.clip((ends[1] - ends[0]) / np.maximum(high - low, np.finfo(float).tiny), -1, 1)
        self.offset = np.maximum(ends[1] - self.slope * high, ends[0] - self.slope * low)
        self.offset = self.offset + 8 * np.finfo(float).eps * (ends[0] + ends[1])
        self.weights = shallow.weights * shallow.radius  # of y
        self.middle = shallow.weights @ shallow.center + shallow.bias  # z where y = 0
        self.linear = shallow.linear * shallow.radius
        self.constant = shallow.constant + shallow.linear @ shallow.center
        magnitude = np.abs(shallow.center) + shallow.radius
        self.size = np.abs(shallow.weights) @ magnitude + np.abs(shallow.bias)
        self.row_size = np.abs(shallow.linear) @ magnitude + np.abs(shallow.constant)
        self.mean = np.abs(shallow.coefficients).mean(axis=1) + np.finfo(np.float32).tiny
        self.thin = self.weights.astype(np.float32)

    def start(self, row: int) -> Vectors:
        """Somewhere to start a row from: lines by the middle of the box, vectors at random."""
        convex = self.shallow.coefficients[row] >= 0
        lines = np.where(convex & (self.middle > 0), np.float32(1), np.float32(0))
        signs = np.random.default_rng(0).standard_normal((len(lines), RANK), np.float32)
        _make_unit(signs)
        return Vectors(lines, signs, np.eye(1, RANK, dtype=np.float32)[0])

    @np.errstate(invalid="ignore")  # of float32 products (`operators.product`); `prove` tells what came of them
    def solve(
        self,
        rows: np.ndarray,
        known: np.ndarray,
        vectors: Vectors,
        rounds: int,
        step: float,
        stop: Callable[[], bool] | None = None,
    ) -> Lifted:
        """Bounds of some rows (K,) of the network where units have the signs `known` (K, U): 1, -1, or 0 for either.

        vectors: where to start. rounds: of improving all vectors and lines, one at least. step: of the first change of
        lines, in parts of their range.
        """
        terms = _Terms(self, rows, known, np.float32)
        signs, one = np.moveaxis(vectors.signs, 0, 1), vectors.one
        # Gradients in parts of the row's mean coefficient, so that rows of any scale are treated alike.
        ascent = Adam({0: terms.in_range(vectors.lines)}, step, lambda _, lines: terms.in_range(lines))
        some = np.flatnonzero(terms.concave.any(axis=0))
        back = np.ascontiguousarray(self.thin[some].T)
        for turn in range(1, rounds + 1):
            lines = ascent.arrays[0]
            kappa, v, _ = terms.at(lines)
            g = terms.linear + kappa @ self.thin
            before, weighted = signs, v.T[some, :, None] * signs[some]
            inputs = (back @ weighted.reshape(len(some), one.size)).reshape(len(back), *one.shape)
            inputs -= g.T[:, :, None] * one
            alpha = _make_unit(inputs)
            signs = (self.thin @ inputs.reshape(len(inputs), one.size)).reshape(-1, *one.shape)
            signs += terms.middle[:, None, None] * one
            z = np.matmul(signs.transpose(1, 0, 2), one[:, :, None])[..., 0]
            length = _make_unit(signs).T  # of |z| in the relaxation
            pull = np.matmul((v * terms.middle)[:, None, :], signs.transpose(1, 0, 2))[:, 0]
            pull -= np.matmul(g[:, None, :], inputs.transpose(1, 0, 2))[:, 0]
            strength = np.sqrt((pull * pull).sum(axis=1))
            # Where nothing pulls, there is nothing to maximize.
            one = np.where(strength[:, None] > 0, pull / np.maximum(strength, np.float32(1e-30))[:, None], one)
            if turn == rounds or (stop is not None and stop()):
                break
            signs += np.float32(BEYOND) * (signs - before)
            _make_unit(signs)
            if turn <= rounds - POLISH:
                ascent.ascend({0: terms.gradient(z, length) / terms.mean}, DECAY**turn)
        alpha, beta = alpha.T, np.concatenate([v * length, strength[:, None]], axis=1)
        lower = self.prove(rows, known, lines, alpha, beta, stop)
        y = np.matmul(inputs.transpose(1, 0, 2), one[:, :, None])[..., 0]
        minimizer = self.shallow.center + self.shallow.radius * np.clip(y, -1, 1)
        gap = np.where(known == 0, v * (length - np.abs(z)), 0.0)
        return Lifted(lower, Vectors(lines, np.moveaxis(signs, 1, 0), one), minimizer, gap, alpha, beta)

    def prove(
        self,
        rows: np.ndarray,
        known: np.ndarray,
        lines: np.ndarray,
        alpha: np.ndarray,
        beta: np.ndarray,
        stop: Callable[[], bool] | None = None,
    ) -> np.ndarray:
        """Sound lower bounds (K,) of rows under known signs, whatever lines (K, U) and dual variables (`Lifted`) are.

        Where `stop` comes first, nothing is proven; it is not asked before the first one.
        """
        shallow, terms = self.shallow, _Terms(self, rows, known)
        kappa, v, extra = terms.at(terms.in_range(lines.astype(np.float64)))
        g = terms.linear + kappa @ self.weights
        value = terms.constant + kappa @ self.middle + extra.sum(axis=1)
        highest = np.full(len(rows), np.inf)
        for k in range(len(rows)):
            if k and stop is not None and stop():
                break
            some = np.flatnonzero(v[k] > 0)
            b = np.concatenate([v[k, some, None] * self.weights[some], -g[k, None]])
            duals = (alpha[k].astype(np.float64), beta[k, np.append(some, -1)].astype(np.float64))
            highest[k] = _highest(b, (v[k] * self.middle)[some], *duals)
        # Rounding: of z and its products, of the row, and of what is added up here.
        n, units = shallow.weights.shape[1], shallow.weights.shape[0]
        each = SLACK * shallow.uncertainty + gamma(n + 8, g) * self.size
        met = np.abs(kappa) + np.abs(terms.coefficients)
        error = (np.abs(kappa) + v) @ each + gamma(units + 16, g) * (met @ self.size)
        error += gamma(n + 16, g) * self.row_size[rows] + gamma(units + 16, g) * np.abs(extra).sum(axis=1)
        error += shallow.doubt[rows] + gamma(8, g) * (np.abs(value) + highest)
        error += floor(g) * (1 + np.abs(shallow.center).sum() + shallow.radius.sum()) * (1 + met.sum(axis=1))
        lower = value - highest - SLACK * error
        return np.where(np.isfinite(lower), lower, -np.inf)


class _Terms:
    """The rows of some problems under known signs, written as  kappa . z - v . |z| + linear . y + constant."""

    def __init__(self, lifting: Lifting, rows: np.ndarray, known: np.ndarray, dtype: type = np.float64):
        self.known, self.free = known, known == 0
        self.coefficients = lifting.shallow.coefficients[rows].astype(dtype)
        self.convex, self.concave = self.free & (self.coefficients >= 0), self.free & (self.coefficients < 0)
        self.mean = lifting.mean[rows, None].astype(dtype)
        self.linear, self.constant = lifting.linear[rows].astype(dtype), lifting.constant[rows].astype(dtype)
        self.slope, self.offset, self.middle = (
            part.astype(dtype) for part in (lifting.slope, lifting.offset, lifting.middle)
        )

    def in_range(self, lines: np.ndarray) -> np.ndarray:
        """Lines (K, U) brought to where they mean something: slopes and shares to [0, 1], multipliers above 0."""
        return np.where(self.free, np.clip(lines, 0, 1), np.maximum(lines, 0))

    def at(self, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """kappa and v, for lines (K, U) in their range, and what is added to the constants, all (K, U)."""
        c, half = self.coefficients, self.coefficients / 2
        v = np.where(self.concave, -half * (1 - lines), 0)
        chord = np.where(self.concave, -half - v, 0)
        kappa = np.where(self.convex, c * lines, half - chord * self.slope)
        multiplier = self.mean * lines
        kappa = np.where(self.known > 0, c - multiplier, np.where(self.known < 0, multiplier, kappa))
        return kappa, v, -chord * self.offset

    def gradient(self, z: np.ndarray, length: np.ndarray) -> np.ndarray:
        """The derivative of the bound by lines (K, U) where z and |z| have these values in the relaxation."""
        chord = length - self.slope * z - self.offset
        along = np.where(self.convex, self.coefficients * z, -self.known * self.mean * z)
        return np.asarray(np.where(self.concave, -self.coefficients / 2 * chord, along))


def _highest(b: np.ndarray, corner: np.ndarray, alpha: np.ndarray, beta: np.ndarray) -> float:
    """Above  max q' B y + q_last * corner . q  over signs q (U + 1,) and |y_i| <= 1 (n,), by dual variables.

    b: (U + 1, n). corner: (U,). The last sign is that of the number 1. Infinite where nothing can be proven.
    """
    if not all(np.isfinite(x).all() for x in (alpha, beta, b, corner)) or min(alpha.min(), beta.min()) < 0:
        return float("inf")
    alpha, beta = (np.maximum(x, LEAST * x.mean() + np.finfo(float).tiny * 2.0**40) for x in (alpha, beta))
    root, count = b / np.sqrt(alpha), len(beta)
    square = root @ root.T
    square[:-1, -1] += corner
    square[-1, :-1] += corner
    # How far the square may be from the true one, in its spectral norm: by the largest sum of a row.
    size = np.abs(root)
    off = gamma(b.shape[1] + 16, b) * (size @ size.sum(axis=0)) + gamma(8, b) * np.abs(square).sum(axis=1)
    scale = 1 / np.sqrt(beta)
    try:
        factor = max(float(np.linalg.eigvalsh(scale[:, None] * square * scale)[-1]), 0.0)
        # What the decomposition itself may be off by, relative to the trace, and what the square may be.
        shift = SLACK * (float(off.max()) + gamma(count + 8, b) * (factor + 1) * beta.sum()) + floor(b) * count
        factor = factor * (1 + 1e-9) + 2 * shift / float(beta.min())
        if not np.isfinite(np.linalg.cholesky(np.diag(factor * beta - shift) - square)).all():
            return float("inf")  # there are libraries that do not mind NaN
    except np.linalg.LinAlgError:
        return float("inf")
    return float((alpha.sum() + factor * beta.sum()) / 2 * (1 + gamma(count + b.shape[1] + 8, b)))


def _make_unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors (..., RANK) to length 1 in place; their lengths before."""
    length = np.sqrt(np.einsum("...r,...r->...", vectors, vectors))
    vectors /= np.maximum(length, np.float32(1e-30))[..., None]
    return np.asarray(length)
