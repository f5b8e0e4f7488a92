"""Bounds that domain clipping has found as facts: of entries of a batch, each after those that it began with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mipverify.proof.derivation import ClippedRows, Confined, Derivation, Splits, Tightened
from mipverify.proof_file.file import Arrays, UnprovableError
from mipverify.proof_file.passes import pass_evidence
from mipverify.proof_file.sites import Sites
from mipverify.proof_file.world import World


class Clips:
    """The facts about one goal, appended to `found`; within the bounds of fact `of`, on which `world` is.

    goal: what a fact says of it: a condition, or one side of a unit of a site.
    """

    def __init__(
        self, found: list[dict[str, Any]], arrays: Arrays, sites: Sites, world: World, of: int, goal: Mapping[str, Any]
    ):
        self._found, self._arrays, self._sites, self._world = found, arrays, sites, world
        self._of, self._goal = of, dict(goal)
        self._numbers: dict[tuple[int, int], int] = {}

    def number(self, how: Derivation, entry: int) -> int:
        """The number of the fact about an entry of clipped bounds; what it rests on is written first.

        Raises UnprovableError where others than clipped bounds took the place of those of the tree.
        """
        pending: list[tuple[Derivation, int]] = []
        outer: tuple[Derivation, int] | None = (how, entry)
        while outer is not None and (id(outer[0]), outer[1]) not in self._numbers:
            pending.append(outer)
            confined, _ = _parts(outer[0])
            outer = confined.of.own[outer[1]] if confined.of.own else None
        number = None if outer is None else self._numbers[id(outer[0]), outer[1]]
        for step, own in reversed(pending):
            self._found.append(self._fact(step, own, number))
            number = self._numbers[id(step), own] = len(self._found) - 1
        assert number is not None
        return number

    def _fact(self, how: Derivation, entry: int, outer: int | None) -> dict[str, Any]:
        (confined, found), add = _parts(how), self._arrays.add
        samples = np.zeros(1, int) if confined.low.samples is None else confined.low.samples  # None: a batch of one
        row = np.flatnonzero(samples == entry)
        fact: dict[str, Any] = {"rule": "clip", "of": self._of}
        if outer is not None:
            fact["from"] = outer
        fact |= {"splits": add(self._phases(confined.of.splits[entry])), **self._goal}
        fact |= {
            "level": float(confined.levels[entry]),
            **pass_evidence(confined.low, row, self._world, self._arrays, self._sites),
        }
        planes: list[tuple[int, int, int]] = []
        for split in confined.split:
            entries = np.zeros(len(split.units), int) if split.samples is None else split.samples
            for k in np.flatnonzero(entries == entry).tolist():
                place = self._world.claims[split.node] if split.node is not None else None
                if place is None:
                    raise UnprovableError("a plane of no unit")
                unit = int(place.of(split.units[[k]])[0])
                planes.append((self._sites.number(place.site), unit, -int(np.sign(split.factors[k]))))
        fact["planes"] = add(np.array(planes, np.int32).reshape(-1, 3))
        fact["layers"] = [self._layer(rows, entry, 1 + len(planes)) for rows in found if (rows.samples == entry).any()]
        return fact

    def _phases(self, splits: Splits) -> np.ndarray:
        named = []
        for relu, unit, sign in splits:
            place = self._world.relus[relu]
            named.append((self._sites.number(place.site), int(place.of(np.array([unit]))[0]), sign))
        return np.array(named, np.int32).reshape(-1, 3)

    def _layer(self, rows: ClippedRows, entry: int, planes: int) -> dict[str, Any]:
        own, place = np.flatnonzero(rows.samples == entry), self._world.claims[rows.node]
        return {
            "site": self._sites.number(place.site),
            "units": self._arrays.add(place.of(rows.units[own])),
            "signs": self._arrays.add(np.sign(rows.factors[own]).astype(np.int8)),
            "multipliers": self._arrays.add(rows.multipliers[own][:, :planes]),
        }


def _parts(how: Derivation) -> tuple[Confined, list[ClippedRows]]:
    """Where clipped bounds begin, and what was found of their units, layer by layer."""
    layers: list[ClippedRows] = []
    while isinstance(how, Tightened):
        for rows in reversed(how.found):
            if not isinstance(rows, ClippedRows):
                raise UnprovableError(f"no rule clips bounds by {type(rows).__name__}")
            layers.append(rows)
        how = how.of
    if not isinstance(how, Confined):
        raise UnprovableError(f"bounds of a case by {type(how).__name__}")
    return how, layers[::-1]
