"""Semidefinite bounds of rows over one layer of ReLUs: from dual variables, by a verified positive definite matrix.

Over a box x = center + radius y, |y_i| <= 1, let a row be l . x + k + sum_j c_j relu(z_j) with z = W x + m. Units with
c_j >= 0 are convex, and lines below them lose nothing. For the others relu(z) = (z + |z|) / 2, and what they and all
linear terms take away is at most

    max  sum_j v_j q_j z_j(y) - g . y   over |y_i| <= 1 and signs q_j,

a problem like that of a maximum cut [Goemans and Williamson 1995; for networks Raghunathan et al. 2018, Certified
Defenses, section 3]. Whatever the dual variables alpha (of inputs) and beta (of signs, and of 1) are: if
diag(beta) - C - B diag(1 / alpha) B'  is positive semidefinite, B and C being the coefficients of products of signs
with inputs and among themselves, the maximum is at most (sum alpha + sum beta) / 2: it is a sum of squares away from
that. A Cholesky decomposition proves this, with all rounding errors accounted for [Rump 2006, Verification of positive
definiteness].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mipverify.proof.bounds import Bounds
from mipverify.proof.derivation import Derivation, Semidefinite
from mipverify.proof.facts import SEAL, Assumption, Claim, RowBounds, Scope, Sealed
from mipverify.proof.reduction import affine_rows, exact_lines
from mipverify.proof.rounding import SLACK, ball, floor, gamma

SHORT = 1e-6  # what dual variables of signs are raised by before they are rounded to float32
LEAST = 1e-4  # of their mean: smaller dual variables are raised to it, since others are divided by them


@dataclass(frozen=True, eq=False)
class SingleLayer(Sealed):
    """Rows linear . x + constant + coefficients . relu(weights x + bias) over a box.

    weights (U, n), bias, error_bound, lower, upper (U,): of the unstable units; what they stand for may be off by
    their error bound. linear (R, n), coefficients (R, U), constant, deviation (R,): of the rows; likewise. center,
    radius (n,): of the box. relu: the node of the units; units (U,): their places there, ascending. bounds: within
    which this holds.
    """

    weights: np.ndarray
    bias: np.ndarray
    error_bound: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    linear: np.ndarray
    coefficients: np.ndarray
    constant: np.ndarray
    deviation: np.ndarray
    center: np.ndarray
    radius: np.ndarray
    relu: int
    units: np.ndarray
    bounds: Bounds

    @staticmethod
    def of(bounds: Bounds) -> SingleLayer | None:
        """The outputs of a network within bounds (batch 1).

        None unless the unstable units belong to one ReLU node, or if a bound is not finite.
        """
        if bounds.batch != 1 or bounds.scope.assumptions is not None:
            raise ValueError(
                "one layer is all that is unstable only within bounds of one input set, under which nothing is assumed"
            )
        # Rows pass through stable units (`exact_lines`): only the others are units of their own.
        network, exact = bounds.network, exact_lines(bounds)
        unstable = {relu: np.flatnonzero(np.asarray(bounds.unstable(relu)).reshape(-1)) for relu in network.relus}
        layers = [(relu, units) for relu, units in unstable.items() if len(units)]
        if len(layers) != 1 or not bounds.finite().all():
            return None
        ((relu, units),) = layers
        source = network.relu_source(relu)
        lower, upper = (side[source].reshape(-1)[units] for side in (bounds.lower, bounds.upper))
        outputs = np.arange(network.output_size)
        rows, constant, deviation = affine_rows(bounds, exact, network.output, outputs, layers)
        linear, coefficients = np.split(rows, [network.input_size], axis=1)
        box = ball(bounds.lower[0].reshape(-1), bounds.upper[0].reshape(-1))
        hidden = affine_rows(bounds, exact, source, units, [])
        return SingleLayer(
            *hidden, lower, upper, linear, coefficients, constant, deviation, *box, relu, units, bounds, seal=SEAL
        )


class SemidefiniteRelaxation:
    """The relaxation of a network with one unstable layer: what searches and proofs of its rows have in common."""

    def __init__(self, single_layer: SingleLayer):
        self.single_layer = single_layer
        low, high = single_layer.lower, single_layer.upper
        # |z| <= slope z + offset between low and high: a convex function lies below its values at the ends.
        ends = np.abs(low), np.abs(high)
        self.slope = np.clip((ends[1] - ends[0]) / np.maximum(high - low, np.finfo(float).tiny), -1, 1)
        self.offset = np.maximum(ends[1] - self.slope * high, ends[0] - self.slope * low)
        self.offset = self.offset + 8 * np.finfo(float).eps * (ends[0] + ends[1])
        self.weights = single_layer.weights * single_layer.radius  # of y
        self.middle = single_layer.weights @ single_layer.center + single_layer.bias  # z where y = 0
        self.linear = single_layer.linear * single_layer.radius
        self.constant = single_layer.constant + single_layer.linear @ single_layer.center
        magnitude = np.abs(single_layer.center) + single_layer.radius
        self.size = np.abs(single_layer.weights) @ magnitude + np.abs(single_layer.bias)
        self.row_size = np.abs(single_layer.linear) @ magnitude + np.abs(single_layer.constant)
        self.mean = np.abs(single_layer.coefficients).mean(axis=1) + np.finfo(np.float32).tiny

    def signs(self, assumptions: Sequence[Assumption]) -> np.ndarray:
        """What assumptions (K,) say of the signs of units, (K, U): 1, -1, or 0 for either."""
        known, units = np.zeros((len(assumptions), len(self.single_layer.units)), np.int8), self.single_layer.units
        splits = [
            (k, unit, s) for k, a in enumerate(assumptions) for r, unit, s in a.splits if r == self.single_layer.relu
        ]
        if splits:
            entry, unit, sign = np.array(splits).T
            place = np.minimum(np.searchsorted(units, unit), len(units) - 1)
            found = units[place] == unit
            known[entry[found], place[found]] = sign[found]
        return known

    def prove(
        self,
        rows: np.ndarray,
        assumptions: Sequence[Assumption],
        lines: np.ndarray,
        alpha: np.ndarray,
        beta: np.ndarray,
        stop: Callable[[], bool] | None = None,
    ) -> RowBounds:
        """Lower bounds of rows (K,), each under an assumption, from lines (K, U), alpha (K, n), beta (K, U + 1).

        Where `stop` comes first, nothing is proven; it is not asked before the first one.
        """
        units, inputs = self.single_layer.weights.shape
        if [x.shape for x in (lines, alpha, beta)] != [(len(rows), k) for k in (units, inputs, units + 1)]:
            raise ValueError("each row needs a line for each unit, and dual variables for each input and sign")
        single_layer, terms = self.single_layer, Terms(self, rows, self.signs(assumptions))
        recorded = single_layer.bounds.derivation is not None
        short = _Short(alpha, beta) if recorded else None
        if short is not None:
            lines = short.lines(terms, lines)
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
            highest[k], *used = _highest(b, (v[k] * self.middle)[some], *duals, recorded)
            if short is not None:
                short.take(k, np.append(some, units), *used)
        # Rounding: of z and its products, of the row, and of what is added up here.
        n, units = single_layer.weights.shape[1], single_layer.weights.shape[0]
        each = SLACK * single_layer.error_bound + gamma(n + 8, g) * self.size
        weight = np.abs(kappa) + np.abs(terms.coefficients)
        error = (np.abs(kappa) + v) @ each + gamma(units + 16, g) * (weight @ self.size)
        error += gamma(n + 16, g) * self.row_size[rows] + gamma(units + 16, g) * np.abs(extra).sum(axis=1)
        error += single_layer.deviation[rows] + gamma(8, g) * (np.abs(value) + highest)
        error += (
            floor(g) * (1 + np.abs(single_layer.center).sum() + single_layer.radius.sum()) * (1 + weight.sum(axis=1))
        )
        lower = value - highest - SLACK * error
        lower = np.where(np.isfinite(lower), lower, -np.inf)
        own = single_layer.bounds
        scope = Scope(wider=own.around, assumptions=tuple(assumptions), whole=own.scope.key, seal=SEAL)
        claim = Claim(single_layer.bounds.network.output, rows, np.ones(len(rows)))
        how = None if short is None else short.derivation(single_layer, claim, assumptions)
        return RowBounds(scope, claim, None, lower, seal=SEAL, derivation=how)


class _Short:
    """The evidence of some rows (K,) as a file holds it, in float32, and as it is used then."""

    def __init__(self, alpha: np.ndarray, beta: np.ndarray):
        self.shares = np.zeros((0, 0), np.float32)
        self.alpha, self.beta = np.zeros(alpha.shape, np.float32), np.zeros(beta.shape, np.float32)

    def lines(self, terms: Terms, lines: np.ndarray) -> np.ndarray:
        """Lines as they are used; multipliers of units of known sign are stored as they are."""
        unit = np.where(terms.free, 1.0, terms.mean)
        self.shares = (terms.in_range(lines.astype(np.float64)) * unit).astype(np.float32)
        return np.asarray(self.shares.astype(np.float64) / unit)

    def take(self, row: int, some: np.ndarray, alpha: np.ndarray, beta: np.ndarray) -> None:
        """The dual variables of a row, those of signs for some of these."""
        self.alpha[row], self.beta[row, some] = alpha, beta

    def derivation(
        self, single_layer: SingleLayer, claim: Claim, assumptions: Sequence[Assumption]
    ) -> Derivation | None:
        """How the rows were bounded."""
        if single_layer.bounds.derivation is None or not single_layer.bounds.over_boxes:
            return None
        splits = tuple(assumption.splits for assumption in assumptions)
        own = single_layer.bounds.derivation, claim.node, claim.units, splits, single_layer.relu, single_layer.units
        return Semidefinite(*own, self.shares, self.alpha, self.beta)


class Terms:
    """The rows of some problems under known signs, written as  kappa . z - v . |z| + linear . y + constant."""

    def __init__(
        self, relaxation: SemidefiniteRelaxation, rows: np.ndarray, known: np.ndarray, dtype: type = np.float64
    ):
        self.known, self.free = known, known == 0
        self.coefficients = relaxation.single_layer.coefficients[rows].astype(dtype)
        self.convex, self.concave = self.free & (self.coefficients >= 0), self.free & (self.coefficients < 0)
        self.mean = relaxation.mean[rows, None].astype(dtype)
        self.linear, self.constant = relaxation.linear[rows].astype(dtype), relaxation.constant[rows].astype(dtype)
        self.slope, self.offset, self.middle = (
            part.astype(dtype) for part in (relaxation.slope, relaxation.offset, relaxation.middle)
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


def _highest(
    b: np.ndarray, corner: np.ndarray, alpha: np.ndarray, beta: np.ndarray, short: bool = False
) -> tuple[float, np.ndarray, np.ndarray]:
    """Above  max q' B y + q_last * corner . q  over signs q (U + 1,) and |y_i| <= 1 (n,), by dual variables.

    b: (U + 1, n). corner: (U,). The last sign is that of the number 1. Infinite where nothing can be proven. Then the
    variables with which that is so, which are float32 with `short`.
    """
    nothing = float("inf"), alpha, beta
    if not all(np.isfinite(x).all() for x in (alpha, beta, b, corner)) or min(alpha.min(), beta.min()) < 0:
        return nothing
    alpha, beta = (np.maximum(x, LEAST * x.mean() + np.finfo(float).tiny * 2.0**40) for x in (alpha, beta))
    if short:
        alpha = alpha.astype(np.float32).astype(np.float64)
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
        beta = factor * beta
        if short:
            beta = (beta * (1 + SHORT)).astype(np.float32).astype(np.float64)
        if not np.isfinite(np.linalg.cholesky(np.diag(beta - shift) - square)).all():
            return nothing  # there are libraries that do not mind NaN
    except np.linalg.LinAlgError:
        return nothing
    return float((alpha.sum() + beta.sum()) / 2 * (1 + gamma(count + b.shape[1] + 8, b))), alpha, beta
