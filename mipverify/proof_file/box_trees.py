"""Case distinctions on the input box as trees in preorder, with what shows each row where it is closed."""

from __future__ import annotations

from typing import Any

import numpy as np

from mipverify.proof.box_tree import Boxed
from mipverify.proof.derivation import Pass
from mipverify.proof_file.file import Arrays, UnprovableError
from mipverify.proof_file.passes import leaf_evidence
from mipverify.proof_file.sites import Sites
from mipverify.proof_file.world import World


def boxes(
    how: Boxed, conditions: np.ndarray, rows: np.ndarray, world: World, arrays: Arrays, sites: Sites
) -> dict[str, Any]:
    """The tree of boxes as far as it is needed to exclude conditions (R,), which are these rows (R,) of it.

    Raises UnprovableError where a row is open in some box.
    """
    tree, position = how.tree, {int(row): k for k, row in enumerate(rows)}
    axis: list[int] = []
    at: list[float] = []
    closed: list[tuple[int, int]] = []
    shown: list[tuple[Pass, int] | None] = []
    pending: list[tuple[int, frozenset[int]]] = [(0, frozenset(position))]
    while pending:
        box, open_ = pending.pop()
        here = tree.closed.get(box, {})
        for row in sorted(open_.intersection(here), key=lambda row: position[row]):
            closed.append((len(axis), position[row]))
            shown.append(here[row])
        left = open_.difference(here)
        if not left:
            axis.append(-1)
            at.append(0.0)
            continue
        if box not in tree.halves:
            raise UnprovableError("a box is open")
        along, value, lower, upper = tree.halves[box]
        if np.isnan(value):
            raise UnprovableError("a box was halved between whose ends no number lies")
        axis.append(along)
        at.append(value)
        pending += [(upper, left), (lower, left)]
    return {
        "conditions": arrays.add(conditions),
        "axis": arrays.add(np.array(axis)),
        "at": arrays.add(np.array(at)),
        "closed": arrays.add(np.array(closed)),
        "sites": [sites.number(world.claims[node].site) for node in how.tightened],
        **leaf_evidence(shown, world, arrays, sites),
    }
