"""Derivations as the facts of a proof file: only those that the end reaches, each once, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mipverify.proof.box_tree import Boxed
from mipverify.proof.derivation import (
    Assumed,
    Both,
    Cased,
    Derivation,
    Lifted,
    Pass,
    Pre,
    ReducedTo,
    Selected,
    Started,
    Tightened,
)
from mipverify.proof_file.box_trees import boxes
from mipverify.proof_file.clips import Clips
from mipverify.proof_file.file import Arrays, UnprovableError
from mipverify.proof_file.passes import pass_evidence
from mipverify.proof_file.sites import Sites
from mipverify.proof_file.trees import phases
from mipverify.proof_file.world import World


class Facts:
    """The facts of one case, appended to `found`, which may have those of others.

    world: what the nodes of the network are called in which case `case` was bounded.
    """

    def __init__(self, found: list[dict[str, Any]], arrays: Arrays, sites: Sites, world: World, case: int):
        self.found, self.arrays, self.sites, self._world, self._case = found, arrays, sites, world, case
        self._numbers: dict[tuple[int, int], int] = {}
        self._worlds: dict[int, World] = {}

    def exclude(self, conditions: Sequence[int], grounds: Sequence[tuple[Derivation, int]], entry: int) -> None:
        """Say why conditions are excluded: for each a derivation and which of its rows. entry: of the batch.

        Raises UnprovableError where the format has no rule for a fact on the way.
        """
        by_fact: dict[int, tuple[Derivation, list[tuple[int, int]]]] = {}
        for condition, (how, place) in zip(conditions, grounds, strict=True):
            if isinstance(how, Boxed):  # all rows of a tree are one fact
                by_fact.setdefault(id(how.tree), (how, []))[1].append((condition, how.row))
                continue
            by_fact.setdefault(id(how), (how, []))[1].append((condition, place))
        for how, pairs in by_fact.values():
            self._exclude(how, np.array([c for c, _ in pairs]), np.array([p for _, p in pairs]), entry)

    def _exclude(self, how: Derivation, conditions: np.ndarray, places: np.ndarray, entry: int) -> None:
        if isinstance(how, Lifted):
            self._exclude(how.of, conditions, places, 0)
        elif isinstance(how, Pre):
            of = self.bounds(how.within, entry if how.entry is None else how.entry)
            fact = {"rule": "exclude", "of": of, "conditions": self.arrays.add(conditions), "lines": "interval"}
            self.found.append(fact)
        elif isinstance(how, Pass) and not isinstance(how.within, Assumed):
            of = self.bounds(how.within, entry if how.samples is None else int(how.samples[places[0]]))
            evidence = pass_evidence(how, places, self.world(how.within), self.arrays, self.sites)
            self.found.append({"rule": "exclude", "of": of, "conditions": self.arrays.add(conditions), **evidence})
        elif isinstance(how, Cased):
            of, world = self.bounds(how.of, entry), self.world(how.of)
            for condition, place in zip(conditions.tolist(), places.tolist(), strict=True):
                goal = {"condition": condition}
                self.found.append({"rule": "phases", "of": of, **goal, **self._tree(how, place, world, of, goal)})
        elif isinstance(how, Boxed):
            of = self.bounds(_first(how.of), entry)  # nothing is inherited by the parts
            rest = boxes(how, conditions, places, self.world(how.of), self.arrays, self.sites)
            self.found.append({"rule": "boxes", "of": of, **rest})
        else:
            raise UnprovableError(f"no rule excludes conditions by {type(how).__name__}")

    def bounds(self, how: Derivation, entry: int) -> int:
        """The number of the fact that has the bounds of an entry of a batch; those it needs are written first."""
        chain: list[tuple[Derivation, int]] = []
        while (id(how), entry) not in self._numbers:
            chain.append((how, entry))
            if isinstance(how, Started):
                break
            if isinstance(how, Selected):
                entry = int(how.samples[entry])
                how = how.of
            elif isinstance(how, ReducedTo):
                how, entry = how.of, 0
            elif isinstance(how, Tightened):
                how = how.of
            else:
                raise UnprovableError(f"bounds by {type(how).__name__} are no fact of their own")
        number = self._numbers.get((id(how), entry), -1)
        for step, own in reversed(chain):
            if isinstance(step, Started):
                number = self._append({"rule": "interval", "case": self._case})
            elif isinstance(step, Tightened):
                base, world = number, self.world(step.of)
                for found in step.found:
                    number = self._tighten(number, base, found, own, world)
            self._numbers[id(step), own] = number
        return number

    def world(self, how: Derivation) -> World:
        """What the nodes are called of the network that bounds are of."""
        chain = []
        while id(how) not in self._worlds and not isinstance(how, Started):
            chain.append(how)
            assert isinstance(how, (Tightened, Selected, Assumed, ReducedTo))
            how = how.of
        world = self._worlds.get(id(how), self._world)
        for step in reversed(chain):
            world = world.reduced(step) if isinstance(step, ReducedTo) else world
            self._worlds[id(step)] = world
        return world

    def _append(self, fact: dict[str, Any]) -> int:
        self.found.append(fact)
        return len(self.found) - 1

    def _tighten(self, number: int, base: int, how: Derivation, entry: int, world: World) -> int:
        """Facts that tighten bounds `number` by what was found within bounds; `base`: those the caller began with."""
        if isinstance(how, Lifted) and isinstance(how.of, Pre):
            if self.bounds(how.of.within, 0) < number:
                raise UnprovableError("bounds of a reduced network, of other bounds than these")
            return self.bounds(how.of.within, 0)
        if isinstance(how, Lifted):
            return self._tighten(number, base, how.of, 0, self._within(how.of))
        if isinstance(how, Both):
            lower, upper = how.lower, how.upper
            if not isinstance(lower, Pass) or not isinstance(upper, Pass):
                raise UnprovableError("the sides of entries are no passes")
            if not any(_has_evidence(side) for side in (lower, upper)):
                own = Pass(lower.within, lower.node, lower.units, lower.factors, lower.samples, two_sided=True)
                return self._by_pass(number, base, own, entry, world)
            number = self._by_pass(number, base, lower, entry, world)
            return self._by_pass(number, base, upper, entry, world)
        if isinstance(how, Pass):
            return self._by_pass(number, base, how, entry, world)
        if isinstance(how, Cased):
            return self._by_cases(number, how, world)
        raise UnprovableError(f"no rule tightens bounds by {type(how).__name__}")

    def _within(self, how: Derivation) -> World:
        if isinstance(how, Both):
            how = how.lower
        if isinstance(how, Pass):
            return self.world(how.within)
        if isinstance(how, Cased):
            return self.world(how.of)
        raise UnprovableError(f"no rule tightens bounds by {type(how).__name__}")

    def _by_pass(self, number: int, base: int, how: Pass, entry: int, world: World) -> int:
        rows = np.arange(len(how.units)) if how.samples is None else np.flatnonzero(how.samples == entry)
        place = None if how.node is None else world.claims.get(how.node)
        if place is None or place.site is None:
            return number  # of a value that no ReLU reads
        within = self.bounds(how.within, entry)
        for side, some in _sides(how, rows):
            if not len(some):
                continue
            fact = {
                "rule": "tighten",
                "of": number,
                "site": self.sites.number(place.site),
                "units": self.arrays.add(place.of(how.units[some])),
                "side": side,
                **pass_evidence(how, some, self.world(how.within), self.arrays, self.sites),
            }
            if within != base:
                fact["within"] = within
            number = self._append(fact)
        return number

    def _by_cases(self, number: int, how: Cased, world: World) -> int:
        place = world.claims[how.node]
        if place.site is None:
            return number
        of = self.bounds(how.of, 0)
        units = place.of(how.units).tolist()
        for row, leaves in enumerate(how.leaves):
            if not leaves or any(leaf.known is None for leaf in leaves):
                continue  # nothing was found
            side = "lower" if how.factors[row] > 0 else "upper"
            goal = {"site": self.sites.number(place.site), "unit": units[row], "side": side}
            rest = self._tree(how, row, self.world(how.of), of, goal)
            fact = {"rule": "phases", "of": number, **goal, **rest}
            number = self._append(fact if of == number else {**fact, "within": of})
        return number

    def _tree(self, how: Cased, row: int, world: World, of: int, goal: dict[str, Any]) -> dict[str, Any]:
        """The tree of a row about a goal, whose clipped bounds are written first. of: the bounds that it is within."""
        clips = Clips(self.found, self.arrays, self.sites, world, of, goal)
        return phases(how.leaves[row], how.of, world, self.arrays, self.sites, clips.number)


def _first(how: Derivation) -> Derivation:
    """The bounds that bounds of one input set were tightened from."""
    while isinstance(how, Tightened):
        how = how.of
    return how


def _has_evidence(how: Pass) -> bool:
    """Whether a pass has any of its own."""
    return bool(how.slopes or how.multipliers or how.cuts) or how.inequalities is not None


def _sides(how: Pass, rows: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Rows by the side of their units that they bound."""
    if how.two_sided:
        return [("both", rows)]
    positive = np.asarray(how.factors)[rows] > 0
    return [("lower", rows[positive]), ("upper", rows[~positive])]
