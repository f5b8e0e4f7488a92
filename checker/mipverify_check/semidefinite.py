"""Semidefinite bounds of a margin over one layer of unstable ReLUs (docs/proof-format.md, section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mipverify_check.arithmetic import Arithmetic, Array
from mipverify_check.bounds import Aim, Bounds
from mipverify_check.container import Proof
from mipverify_check.errors import RejectedError
from mipverify_check.network import Affine, Relu

LIFTED = ("leaves", "site", "units", "shares", "alpha", "beta")


def raised(
    proof: Proof,
    given: dict[str, Any],
    bounds: Bounds,
    aim: Aim,
    relu: int,
    splits: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]],
    values: Array,
) -> Array:
    """Lower bounds (L,) of the leaves of a tree, with semidefinite ones of the row `aim` where these are `given`.

    relu: the node of their units. splits: by node of a pre-activation units, leaves and signs. Raises RejectedError
    where the set is no box, another unit is unstable, or the evidence is malformed.
    """
    network, of = bounds.network, bounds.network.nodes[relu]
    arithmetic, inputs = network.arithmetic, bounds.set
    assert isinstance(of, Relu)
    if inputs.ball is not None or inputs.matrix is not None:
        raise RejectedError("semidefinite bounds are over boxes")
    units = proof.array(given["units"], (None,), "iu", of.size)
    leaves = proof.array(given["leaves"], (None,), "iu", len(values))
    if len(np.unique(units)) != len(units) or len(np.unique(leaves)) != len(leaves):
        raise RejectedError("a semidefinite bound names a unit or a leaf twice")
    sizes = (("shares", len(units)), ("alpha", network.nodes[0].size), ("beta", len(units) + 1))
    read = [proof.array(given[name], (len(leaves), size), "f") for name, size in sizes]
    shares, alpha, beta = (np.maximum(arithmetic.array(numbers), 0) for numbers in read)
    signs = np.zeros((len(values), of.size), np.int8)
    if of.source in splits:
        own, rows, phases = splits[of.source]
        signs[rows, own] = phases
    hidden = _form(bounds, of.source, units, relu, np.zeros(0, int))
    whole = _form(bounds, aim.node, aim.units, relu, units)
    interval = bounds.lower[of.source][units, 0], bounds.upper[of.source][units, 0]
    problem = _Problem(arithmetic, inputs.lower[:, 0], inputs.upper[:, 0], hidden, whole, interval)
    values = values.copy()
    for k, leaf in enumerate(leaves.tolist()):
        values[leaf] = problem.bound(signs[leaf, units], shares[k], alpha[k], beta[k])
    return values


@dataclass(frozen=True, eq=False)
class _Form:
    """R quantities that are `a . x + constant + met . y`, give or take `error`: a (n, R), met (U, R) of y = relu(z)."""

    a: Array
    constant: Array
    met: Array
    error: Array


def _form(bounds: Bounds, node: int, entries: np.ndarray, relu: int, units: np.ndarray) -> _Form:
    """Entries of a node over the input and units of a ReLU node, through stable ReLUs as they are."""
    network, count = bounds.network, len(entries)
    arithmetic = network.arithmetic
    start = arithmetic.zeros((network.nodes[node].size, count))
    start[entries, np.arange(count)] = arithmetic.array(np.ones(count))
    pending: dict[int, Array] = {node: start}
    constant, size, error = (arithmetic.zeros((count,)) for _ in range(3))
    met = arithmetic.zeros((len(units), count))
    for k in range(node, 0, -1):
        a = pending.pop(k, None)
        if a is None:
            continue
        current = network.nodes[k]
        through: dict[int, Array] = {}
        if isinstance(current, Affine):
            magnitude = bounds.magnitudes[k]
            through = {}
            for source, linear in current.terms:
                back = linear.adjoint(a)
                through[source] = through[source] + back if source in through else back
            if current.bias is not None:
                constant = constant + (current.bias[:, None] * a).sum(0)
        else:
            assert isinstance(current, Relu)
            low, high = bounds.lower[current.source], bounds.upper[current.source]
            magnitude = np.maximum(np.abs(low), np.abs(high))
            active, unstable = (low >= 0)[:, 0], ((low < 0) & (high > 0))[:, 0]
            if k == relu and len(units):
                met = a[units]
                active[units] = unstable[units] = False
            if (a[unstable] != 0).any():
                raise RejectedError("a unit is unstable that is none of those of the semidefinite bound")
            through = {current.source: np.where(active[:, None], a, arithmetic.zeros((1, 1)))}
        charged = (np.abs(a) * magnitude).sum(0)
        size, error = size + charged, error + arithmetic.gamma(max(network.roundings[k], current.size) + 8) * charged
        for source, back in through.items():
            pending[source] = pending[source] + back if source in pending else back
    steps = arithmetic.gamma(4 * len(network.nodes) + 64)
    error = (error + steps * size + arithmetic.floor) * (1 + steps)
    reached = pending.get(0)
    return _Form(arithmetic.zeros((network.nodes[0].size, count)) if reached is None else reached, constant, met, error)


@dataclass(frozen=True, eq=False)
class _Problem:
    """What all leaves have in common."""

    arithmetic: Arithmetic
    lower: Array
    upper: Array
    hidden: _Form
    whole: _Form
    interval: tuple[Array, Array]

    def bound(self, signs: np.ndarray, shares: Array, alpha: Array, beta: Array) -> Any:
        """The bound of one leaf; -inf where the matrix is not shown to be positive semidefinite."""
        gamma, floor = self.arithmetic.gamma, self.arithmetic.floor
        center = (self.lower + self.upper) / 2
        radius = np.maximum(self.upper - center, center - self.lower) * (1 + gamma(4)) + floor
        far = np.abs(center) + radius
        w, m, c = self.hidden.a.T, self.hidden.constant, self.whole.met[:, 0]
        kappa, v, extra, lost = self._lines(signs, shares, c)
        g = self.whole.a[:, 0] + kappa @ w
        constant = self.whole.constant[0] + kappa @ m + extra.sum() + g @ center
        some = np.flatnonzero(v > 0)
        alpha, beta, u = alpha, beta[np.append(some, len(v))], v[some]
        if not ((alpha > 0).all() and self._semidefinite(u, w[some], m[some], g, center, radius, alpha, beta)):
            return -np.inf
        top = (alpha.sum() + beta.sum()) / 2
        sizes = np.abs(w) @ far + np.abs(m)
        every = (np.abs(self.whole.a[:, 0]) + np.abs(kappa) @ np.abs(w)) @ far + np.abs(kappa) @ np.abs(m)
        every = every + abs(self.whole.constant[0]) + np.abs(extra).sum() + v @ sizes + top
        steps = gamma(len(far) + 2 * len(v) + 64)
        lost = lost.sum() + (np.abs(kappa) + v) @ self.hidden.error + self.whole.error[0]
        slack = floor * (1 + far.sum()) * (1 + np.abs(kappa).sum() + v.sum())
        return constant - top - (lost + 2 * steps * every + slack) * (1 + steps)

    def _lines(self, signs: np.ndarray, shares: Array, c: Array) -> tuple[Array, Array, Array, Array]:
        """kappa, v and e of `c relu(z) >= kappa z - v |z| + e`, and what rounding may lose in that, (U,) each."""
        low, high = self.interval
        gamma, zero = self.arithmetic.gamma, self.arithmetic.zeros(c.shape)
        t: Array = np.where(signs == 0, np.minimum(shares, 1), shares)
        width = np.where(high > low, high - low, zero + 1)
        slope = (np.abs(high) - np.abs(low)) / width
        offset = np.maximum(np.abs(high) - slope * high, np.abs(low) - slope * low)
        offset = offset + gamma(8) * (np.abs(low) + np.abs(high)) * (1 + np.abs(slope))
        concave = np.asarray((signs == 0) & (c < 0), bool)
        half: Array = c / 2
        v = np.where(concave, -half * (1 - t), zero)
        chord = np.where(concave, -half - v, zero)
        kappa = np.where(concave, half - chord * slope, c * t)
        kappa = np.where(signs > 0, c - t, np.where(signs < 0, t, kappa))
        size = np.maximum(np.abs(low), np.abs(high))
        lost = gamma(32) * (np.abs(c) + t) * (1 + np.abs(slope)) * (size + np.abs(offset))
        return kappa, v, -chord * offset, lost

    def _semidefinite(
        self, v: Array, w: Array, m: Array, g: Array, center: Array, radius: Array, alpha: Array, beta: Array
    ) -> bool:
        """Whether diag(beta) - C - B diag(1 / alpha) B' is positive semidefinite."""
        gamma = self.arithmetic.gamma
        b = np.concatenate([v[:, None] * w * radius, -(g * radius)[None]])
        corner = v * (w @ center + m)
        scaled = b / alpha
        square = scaled @ b.T
        square[:-1, -1] = square[:-1, -1] + corner
        square[-1, :-1] = square[-1, :-1] + corner
        matrix = -square
        diagonal = np.arange(len(beta))
        matrix[diagonal, diagonal] = matrix[diagonal, diagonal] + beta
        if self.arithmetic.exact:
            return _eliminated(matrix)
        if not np.isfinite(matrix).all():
            return False
        # In the spectral norm, which is at most the largest sum of a row: of B's products, and of what is added.
        off = gamma(len(alpha) + 32) * (np.abs(scaled) @ np.abs(b).sum(0)).max()
        off = off + gamma(16) * (np.abs(matrix).sum(1).max() + np.abs(corner).sum() + beta.max())
        # Cholesky runs through only if the matrix is that close to a positive semidefinite one [Rump 2006].
        shift = 1.01 * (off + gamma(len(beta) + 16) * np.abs(np.diag(matrix)).sum()) + self.arithmetic.floor
        matrix[diagonal, diagonal] -= shift
        try:
            return bool(np.isfinite(np.linalg.cholesky(matrix)).all())
        except np.linalg.LinAlgError:
            return False


def _eliminated(matrix: Array) -> bool:
    """Whether a matrix of rational numbers is positive semidefinite, by elimination; it is changed."""
    for k in range(len(matrix)):
        pivot, rest = matrix[k, k], matrix[k, k + 1 :]
        if pivot < 0 or (pivot == 0 and (rest != 0).any()):
            return False
        if pivot > 0:
            matrix[k + 1 :, k + 1 :] = matrix[k + 1 :, k + 1 :] - rest[:, None] * (rest / pivot)
    return True
