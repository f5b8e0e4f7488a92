"""Derivations of passes back: their evidence rounded to what a file holds, before anything is concluded from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mipverify.network.operators import Array
from mipverify.proof.box_tree import PartsOf
from mipverify.proof.derivation import SLOPE_STEPS, Assumed, CutSets, Derivation, Lines, Pass, ReducedTo, Values
from mipverify.proof.facts import Claim
from mipverify.specification.sets import Constrained
from mipverify.specification.sets.constrained import Multipliers

if TYPE_CHECKING:
    from mipverify.proof.bounds import Bounds
    from mipverify.proof.cuts import Cuts


def rounded(
    bounds: Bounds, samples: np.ndarray | None, slopes: Mapping[int, Array], multipliers: Mapping[int, Array]
) -> tuple[dict[int, Array], dict[int, Array], Values, Values]:
    """Slopes within [0, 1] and multipliers (R, *shape) by ReLU node, as they are stored, and what is stored.

    Slopes of units that no row meets unstable are not stored: a checker knows them.
    """
    short_slopes, short_multipliers = {}, {}
    stored_slopes: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    stored_multipliers: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    if slopes:  # the others are those of the lines, row by row
        count = len(next(iter(slopes.values())))
        lines = {
            node: np.broadcast_to(line, (count, *line.shape[1:]))
            for node in bounds.network.relus
            if node not in slopes
            for line in [_of_rows(bounds.lines[node].lower_slope, samples)]
        }
        slopes = {**slopes, **lines}
    for node, array in slopes.items():
        flat = np.array(array, np.float64).reshape(len(array), -1)
        unstable = np.asarray(bounds.unstable(node)).reshape(-1, flat.shape[1])
        reached = unstable if samples is None or len(unstable) == 1 else unstable[np.unique(samples)]
        units = np.flatnonzero(reached.any(axis=0))
        values = np.rint(np.nan_to_num(flat[:, units]).clip(0, 1) * SLOPE_STEPS).astype(np.uint8)
        flat[:, units] = values / SLOPE_STEPS
        line = np.asarray(_of_rows(bounds.lines[node].lower_slope, samples)).reshape(-1, flat.shape[1])
        flat = np.where(_of_rows(unstable, samples), flat, line)  # a stable unit is what it is
        short_slopes[node] = flat.reshape(np.shape(array)).astype(array.dtype)
        stored_slopes[node] = units, values
    for node, array in multipliers.items():
        with np.errstate(over="ignore"):
            short = np.asarray(array, np.float32).reshape(len(array), -1)
        short = np.where(np.isfinite(short), short, np.float32(0))
        units = np.flatnonzero(short.any(axis=0))
        short_multipliers[node] = short.reshape(np.shape(array)).astype(array.dtype)
        if len(units):
            stored_multipliers[node] = units, short[:, units]
    return short_slopes, short_multipliers, stored_slopes, stored_multipliers


def rounded_cuts(
    bounds: Bounds, cuts: Mapping[int, Cuts], multipliers: Mapping[int, Array]
) -> tuple[dict[int, Array], dict[int, tuple[CutSets, np.ndarray]]] | None:
    """Multipliers (R, T) of cuts by ReLU node as they are stored, and what is stored.

    None where some cut was not recorded, or was made within other bounds than these, or what is assumed in these.
    """
    within = bounds.derivation.of if isinstance(bounds.derivation, Assumed) else bounds.derivation
    short: dict[int, Array] = {}
    stored: dict[int, tuple[CutSets, np.ndarray]] = {}
    for node, array in multipliers.items():
        how = cuts[node].derivation if node in cuts else None
        if not isinstance(how, CutSets) or how.within is not within or not isinstance(within, ReducedTo):
            return None
        with np.errstate(over="ignore"):
            values = np.asarray(array, np.float32)
        values = np.where(np.isfinite(values), values, np.float32(0))
        short[node] = values.astype(array.dtype)
        if values.any():
            stored[node] = how, values
    return short, stored


def passed(
    bounds: Bounds,
    claim: Claim | None,
    samples: np.ndarray | None,
    slopes: Values,
    multipliers: Values,
    cuts: Mapping[int, tuple[CutSets, np.ndarray]],
) -> Pass | None:
    """The derivation of rows that stand for `claim`, passed back; None where none is recorded, or none can be.

    It is one of entries and negated entries: the multipliers of rows that are multiples of these are divided.
    """
    if bounds.derivation is None or claim is None or claim.units.ndim != 1:
        return None
    entries, factors = _entries(bounds, samples, len(claim.units)), np.asarray(claim.factors)
    size = np.abs(factors)[:, None]  # powers of two: nothing is rounded

    def divided(values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", under="ignore"):
            return values if (size == 1).all() else (values / size).astype(np.float32)

    own = {node: (units, divided(values)) for node, (units, values) in multipliers.items()}
    shares = {node: (sets, divided(values)) for node, (sets, values) in cuts.items()}
    rows = bounds.derivation, claim.node, claim.units, np.sign(factors), entries
    return Pass(*rows, slopes=slopes, multipliers=own, cuts=shares)


def inequalities_met(
    bounds: Bounds,
    how: Derivation | None,
    claim: Claim | None,
    rows: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> tuple[Pass | None, Multipliers]:
    """The evidence for the minima of passed rows (R, n) over a set that is cut by inequalities, as it is stored.

    With it the derivation of the pass, None where there is none, or where what is cut has inequalities of its own. A
    tree of boxes has no evidence for the units of each box: the inequalities serve its last rows alone.
    """
    inputs = bounds.inputs
    assert isinstance(inputs, Constrained)
    if PartsOf.are(bounds.derivation) and (claim is None or claim.node != bounds.network.output):
        short = np.zeros((len(rows), len(inputs.matrix)), np.float32)
    else:
        with np.errstate(over="ignore"):
            short = inputs.propose(rows, lower, upper).multipliers.clip(min=0).astype(np.float32)
    short = np.where(np.isfinite(short), short, np.float32(0))
    mu = short.astype(np.float64)
    within = inputs.whole.propose(rows + mu @ inputs.matrix, lower, upper)
    met = Multipliers(within.points, mu, within)
    if not isinstance(how, Pass) or claim is None or isinstance(inputs.whole, Constrained):
        return None, met
    size = np.abs(np.asarray(claim.factors))[:, None]
    return replace(how, inequalities=(mu / size).astype(np.float32)), met


def entries_passed(
    bounds: Bounds, node: int, units: np.ndarray, samples: np.ndarray | None, lines: Lines
) -> Pass | None:
    """The same for single entries of a node, from both sides."""
    if bounds.derivation is None:
        return None
    entries = _entries(bounds, samples, len(units))
    return Pass(bounds.derivation, node, units, np.ones(len(units)), entries, lines, two_sided=True)


def zeros_passed(bounds: Bounds, samples: np.ndarray | None, count: int, **evidence: Any) -> Pass | None:
    """The same for rows that begin as zero."""
    if bounds.derivation is None:
        return None
    entries = _entries(bounds, samples, count)
    return Pass(bounds.derivation, None, np.zeros(count, int), np.ones(count), entries, **evidence)


def _entries(bounds: Bounds, samples: np.ndarray | None, count: int) -> np.ndarray | None:
    """The entry of each row, None in a batch of one."""
    if bounds.batch == 1:
        return None
    return np.arange(count) if samples is None else np.asarray(samples)


def _of_rows(values: Array, samples: np.ndarray | None) -> Array:
    return values if samples is None or len(values) == 1 else values[samples]
