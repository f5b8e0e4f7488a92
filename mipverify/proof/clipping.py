"""Domain clipping: bounds of single entries over the part of a box where linear functions of it are not positive.

A proof that a row lies above a level may leave out the inputs at which it is above anyway. The row's relaxation ends
in a plane below it; where the plane is above the level, nothing is left to show. The planes below a unit that was split
are of the same kind. For a functional v . x and planes A x + c <= 0,

    min v . x  >=  min over the box of (v + mu A) . x + mu . c    for all mu >= 0 [as in Zhou et al. 2025,
    Clip-and-Verify, section 3; for one plane and single variables the tightening by reduced costs of integer programs].
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mipverify.proof.backward import lower_sides
from mipverify.proof.bounds import Bounds
from mipverify.proof.derivation import Assumed, ClippedRows, Confined, Contradicted, Derivation, Pass
from mipverify.proof.facts import SEAL, Assumption, Ceiling, Claim, RowBounds, Scope, Sealed, UnitBounds
from mipverify.proof.rounding import SLACK, ball, floor, gamma
from mipverify.proof.rows import LinearBounds


@dataclass(frozen=True, eq=False)
class Planes(Sealed):
    """The fact that a . x + constant <= 0, a (P, n), constant (P,), on the input sets of entries (P,) of a batch.

    entry: ascending. scope: of the batch; its assumptions have the ceilings of these planes among them. factors: of the
    row that the first plane of each input set (K,) is below.
    """

    a: np.ndarray
    constant: np.ndarray
    entry: np.ndarray
    scope: Scope
    factors: np.ndarray


def confine(bounds: Bounds, low: LinearBounds, level: float, split: Sequence[LinearBounds]) -> tuple[Bounds, Planes]:
    """Bounds where the rows `low` (one for each entry) are at most `level`, and the planes that say so.

    split: linear bounds of pre-activations, negated where they were split to be active, which are not positive by the
    assumptions of their entries. Raises ValueError where a row is not.
    """
    claim, count = low.claim, bounds.batch
    if claim is None or len(low.constant) != count or not bounds.scope.has(low.bounds.scope):
        raise ValueError("one row for each entry is needed, which stands for something")
    if low.samples is not None and not np.array_equal(low.samples, np.arange(count)):
        raise ValueError("rows of other entries")
    below = [Ceiling(claim.node, int(u), float(f), level) for u, f in zip(claim.units, claim.factors, strict=True)]
    before = bounds.scope.assumptions or (Assumption(),) * count
    pairs = zip(before, below, strict=True)
    assumptions = tuple(a if c in a.ceilings else Assumption(a.splits, (*a.ceilings, c)) for a, c in pairs)
    around, entrywise = bounds.around, bounds.scope.entrywise | {bounds.scope.key}
    scope = Scope(wider=around, entrywise=entrywise, assumptions=assumptions, whole=bounds.whole, seal=SEAL)
    parts = [_planes(low, np.arange(count), level)]
    for linear in split:
        parts.append(_planes(linear, _split_entries(bounds, linear), 0.0))
    a, constant, entry = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.argsort(entry, kind="stable")
    planes = Planes(a[order], constant[order], entry[order], scope, np.asarray(claim.factors), seal=SEAL)
    own = bounds.network, bounds.lower, bounds.upper, bounds.inputs, scope, bounds.within or bounds
    levels = level / np.abs(claim.factors)  # powers of two
    how = _confined(bounds.derivation, low.derivation, levels, [linear.derivation for linear in split])
    return Bounds(*own, seal=SEAL, derivation=how), planes


def _confined(
    of: Derivation | None, low: Derivation | None, levels: np.ndarray, split: Sequence[Derivation | None]
) -> Confined | None:
    """How bounds are confined; None where that is not recorded, or no rows of a pass end in the planes."""
    passes = tuple(how for how in split if isinstance(how, Pass))
    if not isinstance(of, Assumed) or not isinstance(low, Pass) or len(passes) < len(split):
        return None
    return Confined(of, low, levels, passes)


def _planes(linear: LinearBounds, entry: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Planes below rows that are at most `level` on their entries."""
    a, error = linear.coefficients.reshape(len(entry), -1), SLACK * np.asarray(linear.error)
    size = np.abs(linear.constant) + error + abs(level)
    return a, linear.constant - error - level - gamma(8, a) * size - floor(a), entry


def _split_entries(bounds: Bounds, linear: LinearBounds) -> np.ndarray:
    """The entries (R,) of rows that stand for split units, once it is sure that they do."""
    claim, network = linear.claim, bounds.network
    entries = np.arange(len(linear.constant)) if linear.samples is None else np.asarray(linear.samples)
    if claim is None or not bounds.scope.has(linear.bounds.scope):
        raise ValueError("the planes of splits stand for units of the same input sets")
    for entry, unit, factor in zip(entries.tolist(), claim.units.tolist(), claim.factors.tolist(), strict=True):
        splits = bounds.scope.assumption(entry).splits
        if not any(u == unit and s == -factor and network.relu_source(r) == claim.node for r, u, s in splits):
            raise ValueError(f"unit {unit} of node {claim.node} has not been split in entry {entry}")
    return entries


@dataclass(frozen=True, eq=False)
class Clipped(Sealed):
    """The part of one input box that planes leave, entry by entry.

    begin: where the planes of each entry begin. center, radius: of the input box (n,). size: |a| . magnitude +
    |constant| of each plane (P,), which rounding errors are relative to.
    """

    planes: Planes
    begin: np.ndarray
    center: np.ndarray
    radius: np.ndarray
    size: np.ndarray

    @staticmethod
    def of(bounds: Bounds, planes: Planes) -> Clipped:
        """Raises ValueError where the planes are of another batch."""
        if planes.scope.key != bounds.scope.key:
            raise ValueError("planes of other input sets")
        # Where ReLUs read the input itself, entries may know more of it, each for itself: the box around them all.
        ends = bounds.lower[0].min(axis=0), bounds.upper[0].max(axis=0)
        low, high = (end.reshape(-1).astype(np.float64) for end in ends)
        center, radius = ball(low, high)
        size = np.abs(planes.a) @ (np.abs(center) + radius) + np.abs(planes.constant)
        begin = np.searchsorted(planes.entry, np.arange(bounds.batch + 1))
        return Clipped(planes, begin, center, radius, size, seal=SEAL)

    def minimum(
        self, linear: LinearBounds, rows: np.ndarray, entries: np.ndarray, multipliers: np.ndarray
    ) -> UnitBounds:
        """Bounds of what some rows (R,) of `linear` stand for, in the entries (R,) of the batch, ascending.

        multipliers (R, most planes of an entry): of the planes of each row's entry, in order; the positive ones count.
        Raises ValueError where the rows are of other input sets.
        """
        scope, claim = self.planes.scope, linear.claim
        single = linear.bounds.batch == 1 and linear.bounds.scope.assumptions is None
        if claim is None or not scope.has(linear.bounds.scope):
            raise ValueError("rows of other input sets")
        if not single and not np.array_equal(
            np.arange(len(linear.constant))[rows] if linear.samples is None else linear.samples[rows], entries
        ):
            raise ValueError("rows of other entries")
        if not (np.diff(entries) >= 0).all():
            raise ValueError("rows come entry by entry, in ascending order")
        recorded = isinstance(linear.derivation, Pass)
        exact = multipliers.astype(np.float64)
        if recorded:  # as they are stored: of planes below entries, not below multiples of these
            size = np.ones_like(exact)
            size[:, 0] = np.abs(self.planes.factors[entries])
            with np.errstate(over="ignore"):
                multipliers = (np.maximum(exact, 0) * size).astype(np.float32)
            multipliers = np.where(np.isfinite(multipliers), multipliers, np.float32(0))
            exact = multipliers / size
        value = np.empty(len(rows))
        present, first = np.unique(entries, return_index=True)
        parts = [slice(*ends) for ends in itertools.pairwise([*first.tolist(), len(rows)])]
        with np.errstate(over="ignore", invalid="ignore"):  # planes that hardly depend on the input; seen to at the end
            for entry, part in zip(present.tolist(), parts, strict=True):
                value[part] = self._least(linear, rows[part], entry, exact[part])
        lower = np.where(np.isfinite(value), value, -np.inf)
        own = Claim(claim.node, claim.units[rows], claim.factors[rows])
        how = ClippedRows(own.node, own.units, own.factors, entries, multipliers) if recorded else None
        return lower_sides(RowBounds(scope, own, entries, lower, seal=SEAL, derivation=how))

    def _least(self, linear: LinearBounds, rows: np.ndarray, entry: int, multipliers: np.ndarray) -> np.ndarray:
        own = slice(self.begin[entry], self.begin[entry + 1])
        v, constant = linear.coefficients.reshape(len(linear.constant), -1)[rows], linear.constant[rows]
        mu = np.maximum(multipliers[:, : own.stop - own.start], 0.0)
        together = mu @ self.planes.a[own]
        together += v
        value = together @ self.center + constant + mu @ self.planes.constant[own]
        np.abs(together, out=together)
        value = value - together @ self.radius
        terms = 2 * v.shape[1] + 2 * mu.shape[1] + 20
        error = SLACK * np.asarray(linear.error)[rows] + gamma(terms, v) * (linear.size[rows] + mu @ self.size[own])
        error = error + floor(v) * (1 + np.abs(self.center).sum() + self.radius.sum()) * (1 + mu.sum(axis=1))
        return np.asarray(value - SLACK * error)


def by_contradiction(bounds: Bounds, claim: Claim) -> RowBounds:
    """Rows (one for each entry) are above everything where a lower bound exceeds its upper one: no input is there."""
    empty = np.zeros(bounds.batch, bool)
    for node in bounds.network.preactivations:
        crossed = (bounds.lower[node] > bounds.upper[node]).reshape(max(len(bounds.lower[node]), 1), -1).any(axis=1)
        empty |= crossed
    how = None if bounds.derivation is None else Contradicted(bounds.derivation)
    return RowBounds(bounds.scope, claim, None, np.where(empty, np.inf, -np.inf), seal=SEAL, derivation=how)
