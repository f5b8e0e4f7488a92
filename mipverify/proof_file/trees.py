"""Case distinctions on phases as trees in preorder, with the evidence of their leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mipverify.proof.derivation import (
    Assumed,
    Confined,
    Contradicted,
    Derivation,
    Empty,
    Leaf,
    Pass,
    Semidefinite,
    Splits,
    Tightened,
)
from mipverify.proof_file.file import Arrays, UnprovableError
from mipverify.proof_file.passes import leaf_evidence
from mipverify.proof_file.sites import Sites
from mipverify.proof_file.world import World

ClipNumber = Callable[[Derivation, int], int]


class _Leaves:
    """What shows each leaf, in preorder: a row of a pass, perhaps one of zeros, of a semidefinite bound, or nothing."""

    def __init__(self, of: Derivation) -> None:
        self._of = of
        self.passes: list[tuple[Pass, int] | None] = []
        self.clips: list[tuple[Derivation, int] | None] = []
        self.empty: list[bool] = []
        self.lifted: dict[int, tuple[Semidefinite, int]] = {}

    def take(self, leaf: Leaf) -> None:
        """The next leaf. Raises UnprovableError where it was not bounded as a part of the bounds of the tree."""
        how, empty, row = leaf.known, False, None
        clip: tuple[Derivation, int] | None = None
        if isinstance(how, Empty):
            how, empty = how.zero, True
        if isinstance(how, Semidefinite):
            if how.within is not self._of or how.splits[leaf.place] != leaf.splits:
                raise UnprovableError("a case was bounded within other bounds")
            self.lifted[len(self.passes)] = how, leaf.place
        elif isinstance(how, (Pass, Contradicted)):
            within = how.within
            confined = confined_in(within)
            if confined is not None and isinstance(how, Contradicted):
                clip, within = (within, leaf.place), confined.of
            if not isinstance(within, Assumed) or within.of is not self._of:
                raise UnprovableError("a case was bounded within other bounds")
            if within.splits[leaf.place] != leaf.splits:
                raise UnprovableError("a case was bounded under other splits")
            if clip is None and within.own:
                clip = within.own[leaf.place]
            row = (how, leaf.place) if isinstance(how, Pass) else None
        else:
            raise UnprovableError(f"no rule shows a case by {type(how).__name__}")
        self.passes.append(row)
        self.clips.append(clip)
        self.empty.append(empty)

    def evidence(self, world: World, arrays: Arrays, sites: Sites, clips: ClipNumber) -> dict[str, Any]:
        """As the file has it. clips: what makes facts of clipped bounds."""
        found: dict[str, Any] = {}
        if any(self.clips):
            found["clips"] = [None if own is None else clips(*own) for own in self.clips]
        found |= leaf_evidence(self.passes, world, arrays, sites)
        if any(self.empty):
            found["empty"] = arrays.add(np.array(self.empty, np.uint8))
        if self.lifted:
            found["semidefinite"] = self._semidefinite(world, arrays, sites)
        return found

    def _semidefinite(self, world: World, arrays: Arrays, sites: Sites) -> dict[str, Any]:
        rows = list(self.lifted.values())
        first = rows[0][0]
        if any(how.relu != first.relu or not np.array_equal(how.open_units, first.open_units) for how, _ in rows):
            raise UnprovableError("semidefinite bounds of different units in one tree")
        place = world.relus[first.relu]
        stacked = {name: np.stack([getattr(how, name)[k] for how, k in rows]) for name in ("shares", "alpha", "beta")}
        return {
            "leaves": arrays.add(np.array(list(self.lifted))),
            "site": sites.number(place.site),
            "units": arrays.add(place.of(first.open_units)),
            **{name: arrays.add(values) for name, values in stacked.items()},
        }


def confined_in(how: Derivation) -> Confined | None:
    """What clipped bounds were tightened from; None for other bounds."""
    while isinstance(how, Tightened):
        how = how.of
    return how if isinstance(how, Confined) else None


def phases(
    leaves: Sequence[Leaf],
    of: Derivation,
    world: World,
    arrays: Arrays,
    sites: Sites,
    clips: ClipNumber,
) -> dict[str, Any]:
    """The tree of these leaves within bounds `of`, and what shows each of them.

    clips: the number of the fact about clipped bounds, an entry of a batch; it is written where it is not yet.

    A leaf that knows no more than a node above it stands for that node and all below. Raises UnprovableError where a
    leaf is open, or its bounds are no others than those of `of` under its splits.
    """
    known: dict[Splits, Leaf] = {}
    for leaf in leaves:
        if leaf.known is None:
            raise UnprovableError("a case is open")
        known[leaf.splits] = leaf
    nodes: list[tuple[int, int]] = []
    shown = _Leaves(of)
    pending: list[tuple[int, list[Leaf]]] = [(0, list(known.values()))]
    while pending:
        depth, some = pending.pop()
        done = next((leaf for leaf in some if len(leaf.splits) == depth), None)
        if done is not None:
            nodes.append((-1, -1))
            shown.take(done)
            continue
        relu, unit, _ = some[0].splits[depth]
        place = world.relus[relu]
        nodes.append((sites.number(place.site), int(place.of(np.array([unit]))[0])))
        for sign in (-1, 1):  # the active half comes off the stack first
            half = [leaf for leaf in some if leaf.splits[depth] == (relu, unit, sign)]
            if not half:
                raise UnprovableError("a case is missing")
            pending.append((depth + 1, half))
    return {"tree": arrays.add(np.array(nodes)), **shown.evidence(world, arrays, sites, clips)}
