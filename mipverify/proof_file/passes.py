"""The evidence of passes: slopes and multipliers by site, for some of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mipverify.proof.derivation import Pass, Values
from mipverify.proof_file.cuts import cut_evidence
from mipverify.proof_file.file import Arrays
from mipverify.proof_file.sites import Sites
from mipverify.proof_file.world import World


def pass_evidence(how: Pass, rows: np.ndarray, world: World, arrays: Arrays, sites: Sites) -> dict[str, Any]:
    """What some rows of a pass were found with, as the file has it."""
    found: dict[str, Any] = {"lines": how.lines}
    for name, values in (("slopes", how.slopes), ("multipliers", how.multipliers)):
        own = _by_site(how, rows, name, values, world, arrays, sites) if len(rows) else {}
        if own:
            found[name] = own
    if how.inequalities is not None and how.inequalities[rows].any():
        found["inequalities"] = arrays.add(how.inequalities[rows])
    cuts = [(how, int(row)) for row in rows] if how.cuts else []
    return {**found, **cut_evidence(cuts, world, arrays, sites)}


def _by_site(
    how: Pass, places: np.ndarray, name: str, values: Values, world: World, arrays: Arrays, sites: Sites
) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node, (units, stored) in values.items():
        some = stored[places]
        used = np.arange(len(units)) if name == "slopes" else np.flatnonzero(some.any(axis=0))
        if not len(used) or (how.node is not None and node > how.node):
            continue
        place = world.relus[node]
        found[str(sites.number(place.site))] = [arrays.add(place.of(units[used])), arrays.add(some[:, used])]
    return found


def leaf_evidence(
    rows: Sequence[tuple[Pass, int] | None], world: World, arrays: Arrays, sites: Sites
) -> dict[str, Any]:
    """The evidence of the leaves of a tree: a row of some pass each, or none."""
    found: dict[str, Any] = {"lines": "adaptive"}
    for name, kind in (("slopes", np.uint8), ("multipliers", np.float32)):
        columns: dict[int, np.ndarray] = {}
        for row in rows:
            for node, (units, _) in getattr(row[0], name).items() if row is not None else ():
                columns[node] = np.union1d(columns.get(node, units), units)
        own: dict[str, list[str]] = {}
        for node, units in columns.items():
            if not len(units):
                continue
            values = np.zeros((len(rows), len(units)), kind)
            for k, row in enumerate(rows):
                if row is not None and node in getattr(row[0], name):
                    mine, stored = getattr(row[0], name)[node]
                    values[k, np.searchsorted(units, mine)] = stored[row[1]]
            place = world.relus[node]
            own[str(sites.number(place.site))] = [arrays.add(place.of(units)), arrays.add(values)]
        if own:
            found[name] = own
    given = [None if row is None or row[0].inequalities is None else row[0].inequalities[row[1]] for row in rows]
    width = next((len(own) for own in given if own is not None), 0)
    if width:
        found["inequalities"] = arrays.add(np.stack([np.zeros(width, np.float32) if g is None else g for g in given]))
    return {**found, **cut_evidence(rows, world, arrays, sites)}
