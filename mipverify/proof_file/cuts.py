"""The cuts of passes: points at which they are deepest, their units, and multipliers row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mipverify.proof.derivation import CutSets, Pass
from mipverify.proof_file.file import Arrays
from mipverify.proof_file.sites import Sites
from mipverify.proof_file.world import World


def cut_evidence(rows: Sequence[tuple[Pass, int] | None], world: World, arrays: Arrays, sites: Sites) -> dict[str, Any]:
    """The cuts of rows of passes, as the file has them; nothing where there are none."""
    layers: dict[int, _Layer] = {}
    for number, row in enumerate(rows):
        if row is None:
            continue
        how, own = row
        for node, (sets, multipliers) in how.cuts.items():
            used = np.flatnonzero(multipliers[own])
            if len(used) and (how.node is None or node < how.node):
                layers.setdefault(node, _Layer()).add(number, sets, own, used, multipliers[own][used])
    if not layers:
        return {}
    points, found = _Points(world), {}
    for node in sorted(layers, reverse=True):  # the points of later layers begin as those of earlier ones
        numbers = points.add(node, layers[node].positions)
        place = world.relus[node]
        found[str(sites.number(place.site))] = layers[node].written(place.of, numbers, arrays)
    return {"cuts": {**points.written(arrays, sites), "sites": found}}


class _Layer:
    """Cuts of one layer: those that rows share once, and the positions (bytes of uint8) that they are deepest at."""

    def __init__(self) -> None:
        self.positions: dict[bytes, int] = {}
        self._shared: dict[tuple[int, int], int] = {}
        self._cuts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # units, points, phases
        self._count = 0
        self._entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # rows, cuts, multipliers

    def add(self, row: int, sets: CutSets, own: int, used: np.ndarray, multipliers: np.ndarray) -> None:
        """The cuts that a row uses: of those that all share, or of row `own` of its pass."""
        if sets.units.ndim == 2:
            self._new(sets.units[own][used], sets.point[own][used], sets.phases[own][used], sets.positions[own])
            numbers = np.arange(self._count - len(used), self._count)
        else:
            keys = [(id(sets), int(cut)) for cut in used]
            fresh = np.array([cut for key, cut in zip(keys, used, strict=True) if key not in self._shared], int)
            self._shared.update({(id(sets), int(cut)): self._count + k for k, cut in enumerate(fresh)})
            self._new(sets.units[fresh], sets.point[fresh], sets.phases[fresh], sets.positions)
            numbers = np.array([self._shared[key] for key in keys])
        self._entries.append((np.full(len(numbers), row), numbers, multipliers))

    def _new(self, units: np.ndarray, point: np.ndarray, phases: np.ndarray, positions: np.ndarray) -> None:
        present, place = np.unique(point, return_inverse=True)
        known = [self.positions.setdefault(positions[k].tobytes(), len(self.positions)) for k in present.tolist()]
        self._cuts.append((units, np.array(known, int)[place], phases))
        self._count += len(units)

    def written(self, of: Any, numbers: np.ndarray, arrays: Arrays) -> dict[str, str]:
        """As the file has it. of: the units of the site; numbers: of the points, in the order of `positions`."""
        units, points, phases = (np.concatenate(column) for column in zip(*self._cuts, strict=True))
        row, cut, multipliers = (np.concatenate(column) for column in zip(*self._entries, strict=True))
        return {
            "units": arrays.add(of(units)),
            "points": arrays.add(numbers[points]),
            "phases": arrays.add(phases.astype(np.uint8)),
            "rows": arrays.add(row),
            "cuts": arrays.add(cut),
            "multipliers": arrays.add(multipliers),
        }


class _Points:
    """Points of all layers: those of earlier ones are often the beginnings of those of later ones."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._points: list[bytes] = []
        self._beginnings: dict[bytes, int] = {}
        self._inputs, self._last = 0, 0
        self._widths: list[int] = []  # of each layer, and all before it

    def add(self, node: int, positions: dict[bytes, int]) -> np.ndarray:
        """The numbers of the points of a layer."""
        read = [count for _, count in self._world.read[node]]
        if not self._widths:
            self._last, self._inputs = node, len(next(iter(positions))) - sum(read)
            self._widths = [self._inputs, *(self._inputs + np.cumsum(read)).tolist()]
        for point in positions:
            if point not in self._beginnings:
                for width in self._widths:
                    if width <= len(point):
                        self._beginnings[point[:width]] = len(self._points)
                self._points.append(point)
        return np.array([self._beginnings[point] for point in positions])

    def written(self, arrays: Arrays, sites: Sites) -> dict[str, Any]:
        """As the file has them: those of the input, and by site those of the units of each layer."""
        full = np.zeros((len(self._points), self._widths[-1]), np.uint8)
        for number, point in enumerate(self._points):
            full[number, : len(point)] = np.frombuffer(point, np.uint8)
        found, begin = dict[str, list[str]](), self._inputs
        for place, count in self._world.read[self._last]:
            part = full[:, begin : begin + count]
            found[str(sites.number(place.site))] = [arrays.add(place.of(np.arange(count))), arrays.add(part)]
            begin += count
        return {"inputs": arrays.add(full[:, : self._inputs]), "positions": found}
