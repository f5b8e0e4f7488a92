"""Derivations without the rows that nothing needs: of the passes of a search most are exceeded by later ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mipverify.proof.derivation import Both, Cased, ClippedRows, CutSets, Derivation, Lifted, Pass, Values


def trimmed(how: Derivation, rows: np.ndarray) -> Derivation | None:
    """The derivation of some rows, by mask (R,); None where these are none. Rules of one row are left as they are."""
    if rows.all():
        return how
    if not rows.any():
        return None
    if isinstance(how, Lifted):
        of = trimmed(how.of, rows)
        return how if of is how.of or of is None else Lifted(of)
    if isinstance(how, Both):
        lower, upper = trimmed(how.lower, rows), trimmed(how.upper, rows)
        return how if lower is None or upper is None else Both(lower, upper)
    if isinstance(how, Pass):
        return _pass(how, np.flatnonzero(rows))
    if isinstance(how, ClippedRows):
        own = how.units[rows], how.factors[rows], how.samples[rows], how.multipliers[rows]
        return ClippedRows(how.node, *own)
    if isinstance(how, Cased):
        leaves = tuple(own if wanted else () for own, wanted in zip(how.leaves, rows, strict=True))
        return replace(how, leaves=leaves)
    return how


def _pass(how: Pass, keep: np.ndarray) -> Pass:
    def some(values: Values) -> Values:
        return {node: (units, own[keep]) for node, (units, own) in values.items()}

    def cuts(sets: CutSets, multipliers: np.ndarray) -> tuple[CutSets, np.ndarray]:
        return sets if sets.units.ndim == 1 else sets.rows(keep), multipliers[keep]

    return replace(
        how,
        units=how.units[keep],
        factors=how.factors[keep],
        samples=None if how.samples is None else how.samples[keep],
        slopes=some(how.slopes),
        multipliers=some(how.multipliers),
        cuts={node: cuts(*own) for node, own in how.cuts.items()},
        inequalities=None if how.inequalities is None else how.inequalities[keep],
    )
