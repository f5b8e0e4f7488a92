"""Case distinctions on phases as trees in preorder, with the evidence of their leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mipverify.proof.derivation import Assumed, Contradicted, Derivation, Empty, Leaf, Pass
from mipverify.proof_file.file import Arrays, UnprovableError
from mipverify.proof_file.passes import Sites, leaf_evidence
from mipverify.proof_file.world import World


def phases(leaves: Sequence[Leaf], of: Derivation, world: World, arrays: Arrays, sites: Sites) -> dict[str, Any]:
    """The tree of these leaves within bounds `of`, and what shows each of them.

    A leaf that knows no more than a node above it stands for that node and all below. Raises UnprovableError where a
    leaf is open, or its bounds are no others than those of `of` under its splits.
    """
    known: dict[tuple[tuple[int, int, int], ...], Leaf] = {}
    for leaf in leaves:
        if leaf.known is None:
            raise UnprovableError("a case is open")
        known[leaf.splits] = leaf
    nodes: list[tuple[int, int]] = []
    rows: list[tuple[Pass, int] | None] = []
    empty: list[bool] = []
    pending: list[tuple[int, list[Leaf]]] = [(0, list(known.values()))]
    while pending:
        depth, some = pending.pop()
        done = next((leaf for leaf in some if len(leaf.splits) == depth), None)
        if done is not None:
            nodes.append((-1, -1))
            row, is_empty = _shown(done, of)
            rows.append(row)
            empty.append(is_empty)
            continue
        relu, unit, _ = some[0].splits[depth]
        place = world.relus[relu]
        nodes.append((sites.number(place.site), int(place.of(np.array([unit]))[0])))
        for sign in (-1, 1):  # the active half comes off the stack first
            half = [leaf for leaf in some if leaf.splits[depth] == (relu, unit, sign)]
            if not half:
                raise UnprovableError("a case is missing")
            pending.append((depth + 1, half))
    found: dict[str, Any] = {"tree": arrays.add(np.array(nodes)), **leaf_evidence(rows, world, arrays, sites)}
    if any(empty):
        found["empty"] = arrays.add(np.array(empty, np.uint8))
    return found


def _shown(leaf: Leaf, of: Derivation) -> tuple[tuple[Pass, int] | None, bool]:
    """The row of a pass that shows a leaf, if it takes one, and whether that is one of zeros."""
    how, is_empty = leaf.known, False
    if isinstance(how, Contradicted):
        _require(how.within, of, leaf)
        return None, False
    if isinstance(how, Empty):
        how, is_empty = how.zero, True
    if not isinstance(how, Pass):
        raise UnprovableError(f"no rule shows a case by {type(how).__name__}")
    _require(how.within, of, leaf)
    return (how, leaf.place), is_empty


def _require(within: Derivation, of: Derivation, leaf: Leaf) -> None:
    if not isinstance(within, Assumed) or within.of is not of or within.splits[leaf.place] != leaf.splits:
        raise UnprovableError("a case was bounded within other bounds")
