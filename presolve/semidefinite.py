"""The search for semidefinite bounds (`mipverify.proof.semidefinite`): unit vectors in the place of signs.

The relaxation puts unit vectors in the place of all signs, of the inputs in parts of their range, and of the number 1.
Where triangles add up the worst of each unit, this couples them: an input in the middle of the box has all its
pre-activations small at once. Vectors of low rank are improved in turn, which takes nothing but products with the
weights [Burer and Monteiro 2003; Wang, Chang and Kolter 2017, The Mixing Method]. Their lengths, before they are made
units, are the dual variables that the bound is proven with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mipverify.presolve.ascent import Adam

from mipverify.proof.facts import Assumption, RowBounds
from mipverify.proof.semidefinite import SemidefiniteRelaxation, SingleLayer, Terms

RANK = 8  # of the vectors
DECAY = 0.96  # of the steps of lines
BEYOND = 0.7  # of the way to its new place that a sign's vector is taken past it: fewer rounds are needed so
POLISH = 6  # last rounds, in which lines stay as they are and vectors settle


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
class Optimized:
    """What the search came to, for each problem (K).

    bound: what is proven. vectors: with which the search goes on. minimizer (K, n): inputs that the relaxation holds
    for the worst. gap (K, U): by how much it holds the |z| of units without a known sign for too large, times v.
    """

    bound: RowBounds
    vectors: Vectors
    minimizer: np.ndarray
    gap: np.ndarray


class SemidefiniteSearch:
    """Dual variables of the semidefinite relaxation of one unstable layer, for any rows and any known signs."""

    def __init__(self, single_layer: SingleLayer):
        self.relaxation = SemidefiniteRelaxation(single_layer)
        self.surrogate = self.relaxation.weights.astype(np.float32)

    def start(self, row: int) -> Vectors:
        """Somewhere to start a row from: lines by the middle of the box, vectors at random."""
        convex = self.relaxation.single_layer.coefficients[row] >= 0
        lines = np.where(convex & (self.relaxation.middle > 0), np.float32(1), np.float32(0))
        signs = np.random.default_rng(0).standard_normal((len(lines), RANK), np.float32)
        _make_unit(signs)
        return Vectors(lines, signs, np.eye(1, RANK, dtype=np.float32)[0])

    @np.errstate(invalid="ignore")  # of float32 products (`operators.product`); `prove` tells what came of them
    def solve(
        self,
        rows: np.ndarray,
        assumptions: Sequence[Assumption],
        vectors: Vectors,
        rounds: int,
        step: float,
        stop: Callable[[], bool] | None = None,
    ) -> Optimized:
        """Bounds of some rows (K,) of the network, each under an assumption about the signs of units.

        vectors: where to start. rounds: of improving all vectors and lines, one at least. step: of the first change of
        lines, in parts of their range.
        """
        known = self.relaxation.signs(assumptions)
        terms = Terms(self.relaxation, rows, known, np.float32)
        signs, one = np.moveaxis(vectors.signs, 0, 1), vectors.one
        # Gradients in parts of the row's mean coefficient, so that rows of any scale are treated alike.
        ascent = Adam({0: terms.in_range(vectors.lines)}, step, lambda _, lines: terms.in_range(lines))
        some = np.flatnonzero(terms.concave.any(axis=0))
        back = np.ascontiguousarray(self.surrogate[some].T)
        for turn in range(1, rounds + 1):
            lines = ascent.arrays[0]
            kappa, v, _ = terms.at(lines)
            g = terms.linear + kappa @ self.surrogate
            before, weighted = signs, v.T[some, :, None] * signs[some]
            inputs = (back @ weighted.reshape(len(some), one.size)).reshape(len(back), *one.shape)
            inputs -= g.T[:, :, None] * one
            alpha = _make_unit(inputs)
            signs = (self.surrogate @ inputs.reshape(len(inputs), one.size)).reshape(-1, *one.shape)
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
        bound = self.relaxation.prove(rows, assumptions, lines, alpha, beta, stop)
        y = np.matmul(inputs.transpose(1, 0, 2), one[:, :, None])[..., 0]
        minimizer = self.relaxation.single_layer.center + self.relaxation.single_layer.radius * np.clip(y, -1, 1)
        gap = np.where(known == 0, v * (length - np.abs(z)), 0.0)
        return Optimized(bound, Vectors(lines, np.moveaxis(signs, 1, 0), one), minimizer, gap)


def _make_unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors (..., RANK) to length 1 in place; their lengths before."""
    length = np.sqrt(np.einsum("...r,...r->...", vectors, vectors))
    vectors /= np.maximum(length, np.float32(1e-30))[..., None]
    return np.asarray(length)
