"""Cuts of the ideal formulation of ReLUs, which passes may use (docs/proof-format.md, section 4).

Within bounds, the pre-activation of a unit is `w . v + b` over the inputs and the unstable ReLUs before it. For every
set I of these, and p = 1 where the unit is active, p = 0 where it is not,

    y <= sum over I of w_i v_i + s p + h,  h = -(sum over I of min w_i v_i),  s = b + sum over others of max w_i v_i - h
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mipverify_check.arithmetic import Arithmetic, Array
from mipverify_check.bounds import WORKING_BYTES, Beside, Bounds, aim, walk
from mipverify_check.container import Proof, entries, record
from mipverify_check.errors import RejectedError
from mipverify_check.maps import Coefficients
from mipverify_check.network import Relu

TOP = 255  # positions and phases are multiples of 1 / TOP
MOST_ENTRIES = 2**18  # of the matrices of cuts that are made at one time
Positions = dict[int, tuple[np.ndarray, np.ndarray]]  # by node: entries (U,), and where these are at each point (P, U)


@dataclass(frozen=True, eq=False)
class SiteCuts:
    """Cuts of one layer: units, points and phases (T,); and what rows have of them: the row, ascending, the number of
    the cut, and its multiplier (E,)."""

    units: np.ndarray
    points: np.ndarray
    phases: np.ndarray
    rows: np.ndarray
    cuts: np.ndarray
    multipliers: np.ndarray


@dataclass(frozen=True, eq=False)
class Cuts:
    """The cuts of a fact by ReLU node, which hold on the set of `bounds`; their layers are made once for all parts."""

    bounds: Bounds
    positions: Positions
    sites: dict[int, SiteCuts]
    layers: dict[int, _Layer] = field(default_factory=dict)

    def part(self, begin: int, end: int) -> Cuts:
        """Those of the rows from `begin` to `end`."""
        found = {}
        for k, own in self.sites.items():
            some = slice(*np.searchsorted(own.rows, [begin, end]))
            found[k] = replace(own, rows=own.rows[some] - begin, cuts=own.cuts[some], multipliers=own.multipliers[some])
        return replace(self, sites=found)

    def meet(self, k: int, a: Array, ends: tuple[Array, Array], slopes: Array) -> tuple[Array, Array, Array, Beside]:
        """Rows with coefficients a (size, R) of ReLU node k between ends (size, R or 1) each.

        slopes (size, R or 1): of the lines below, in parts of the bend of what these are below. Returns the
        coefficients of the pre-activation, what falls to the constants (R,), the sum of absolute values that errors are
        relative to, and coefficients of other nodes.
        """
        if k not in self.layers:
            self.layers[k] = _layer(self.bounds, k, np.unique(self.sites[k].units), self.positions)
        arithmetic, own, layer = self.bounds.network.arithmetic, self.sites[k], self.layers[k]
        size, count = a.shape
        over, phase = arithmetic.zeros((len(layer.low), count)), arithmetic.zeros(a.shape)
        weight, constant, charged = a.copy(), arithmetic.zeros((count,)), arithmetic.zeros((count,))
        value, reach = (np.maximum(np.abs(low), np.abs(high)) for low, high in (ends, (layer.low, layer.high)))
        value = np.broadcast_to(value, a.shape)
        for some, cut, matrix, step, limit in _matrices(arithmetic, own, layer):
            row, unit = own.rows[some], own.units[own.cuts[some]]
            g = np.maximum(arithmetic.array(own.multipliers[some]), 0)
            np.add.at(weight, (unit, row), g)
            np.add.at(phase, (unit, row), g * step[cut])
            np.add.at(constant, row, -g * limit[cut])
            sizes = np.abs(matrix) @ reach + 2 * np.abs(step) + np.abs(limit)
            np.add.at(charged, row, g * (sizes[cut] + value[unit, row]))
            if len(row) > 2 * len(step):  # rows share their cuts
                shares = arithmetic.zeros((len(step), count))
                np.add.at(shares, (cut, row), g)
                over -= matrix.T @ shares
            else:
                present, first = np.unique(row, return_index=True)
                over[:, present] -= np.add.reduceat(g[:, None] * matrix[cut], first, axis=0).T
        slope, offset = lines(arithmetic, weight, phase, *ends, slopes)
        charged = charged + ((np.abs(a) + np.abs(weight) + np.abs(slope)) * value + np.abs(phase)).sum(0)
        beside = Beside()
        for node, held, columns in layer.parts:
            spread = arithmetic.zeros((self.bounds.network.nodes[node].size, count))
            spread[held] = over[columns]
            beside.append((node, Coefficients(spread)))
        roundings = len(own.cuts) + 4 * size + len(layer.low) + 64  # the caller counts `size` and more
        return slope, constant + offset.sum(0), charged * (2 + roundings // size), beside


def read(proof: Proof, given: Any, relu: Callable[[str], int], bounds: Bounds, rows: int) -> Cuts:
    """The cuts of a fact with `rows` rows. relu: the ReLU node of a site by its number in a string."""
    parts, network = record(given, ("inputs", "positions", "sites")), bounds.network
    inputs = _positions(proof, parts["inputs"], None, network.nodes[0].size)
    count = len(inputs)
    positions: Positions = {0: (np.arange(network.nodes[0].size), inputs)}
    for site, names in _by_site(parts["positions"]).items():
        if len(entries(names)) != 2:
            raise RejectedError("its positions are not given as units and numbers")
        units = proof.array(names[0], (None,), "iu", network.nodes[relu(site)].size)
        if len(np.unique(units)) != len(units):
            raise RejectedError("its positions name a unit twice")
        positions[relu(site)] = units, _positions(proof, names[1], count, len(units))
    sites = {}
    for site, names in _by_site(parts["sites"]).items():
        own = record(names, ("units", "points", "phases", "rows", "cuts", "multipliers"))
        units = proof.array(own["units"], (None,), "iu", network.nodes[relu(site)].size)
        points, phases = (
            proof.array(own["points"], (len(units),), "iu", count),
            proof.array(own["phases"], (len(units),)),
        )
        which = proof.array(own["rows"], (None,), "iu", rows)
        if (np.diff(which) < 0).any() or (phases < 0).any():
            raise RejectedError("its cuts are not in the order of rows, or have phases below zero")
        cuts = proof.array(own["cuts"], (len(which),), "iu", len(units))
        multipliers = proof.array(own["multipliers"], (len(which),), "f").astype(np.float64)
        sites[relu(site)] = SiteCuts(units, points, phases, which, cuts, multipliers)
    return Cuts(bounds, positions, sites)


def _by_site(given: Any) -> dict[str, Any]:
    return record(given, (), tuple(given) if isinstance(given, dict) else ())


def _positions(proof: Proof, name: Any, points: int | None, size: int) -> np.ndarray:
    found = proof.array(name, (points, size), "uf")
    if found.dtype != np.uint8:
        raise RejectedError("a position is no byte")
    return found


def lines(
    arithmetic: Arithmetic, weight: Array, phase: Array, low: Array, high: Array, slopes: Array
) -> tuple[Array, Array]:
    """Slope and offset (size, R) of lines that lie below 0 on [low, 0] and below weight z - phase on [0, high].

    Their envelope is a chord, or two lines that meet above z = 0. A stable unit is what it is.
    """
    zero, one = arithmetic.array(0), arithmetic.array(1)
    free, active = (low < 0) & (high > 0), np.broadcast_to(low >= 0, weight.shape)
    low, high = np.where(free, low, -one), np.where(free, high, one)
    middle, end = np.minimum(0, -phase), weight * high - phase
    chord = end / (high - low)
    left, right = middle / -low, (end - middle) / high
    slope = np.where(middle < -chord * low, left + slopes * (right - left), chord)
    slope = arithmetic.array(slope.astype(np.float64))  # any slope is sound with its own offset
    offset = np.minimum(np.minimum(-slope * low, zero), np.minimum(-phase, (weight - slope) * high - phase))
    slope = np.where(free, slope, np.where(active, weight, zero))
    return slope, np.where(free, offset, np.where(active, -phase, zero))


@dataclass(frozen=True, eq=False)
class _Layer:
    """Pre-activations of units as rows over what cuts may choose: weights (J, N), of values between low and high (N,).

    place: by unit, its row. rest, bias (J,): the most that everything else comes to, and the constant. error (J,):
    above what rounding has done to all this, and does to sums of it. positions (P, N): of the points. parts: (node, its
    entries, their columns).
    """

    place: np.ndarray
    weights: Array
    low: Array
    high: Array
    rest: Array
    bias: Array
    error: Array
    positions: np.ndarray
    parts: list[tuple[int, np.ndarray, slice]]


def _matrices(
    arithmetic: Arithmetic, own: SiteCuts, layer: _Layer
) -> Iterator[tuple[np.ndarray, np.ndarray, Array, Array, Array]]:
    """Some cuts (C,) at a time: the entries that use them, by rows, and which of them each does; then the matrix
    (C, N), step s and limit h (C,) of these cuts."""
    present, cut = np.unique(own.cuts, return_inverse=True)
    order, zero = np.argsort(cut, kind="stable"), arithmetic.array(0)
    width = max(1, MOST_ENTRIES // max(1, len(layer.low)))
    for begin in range(0, len(present), width):
        some = present[begin : begin + width]
        j = layer.place[own.units[some]]
        w, position, share = layer.weights[j], layer.positions[own.points[some]], own.phases[some][:, None]
        rising = (w > 0).astype(bool)
        inside = np.where(rising, position, TOP - position) < share
        down, up = np.where(rising, layer.low, layer.high) * w, np.where(rising, layer.high, layer.low) * w
        limit = layer.error[j] - np.where(inside, down, zero).sum(1)
        # An active unit meets step and limit together.
        step = layer.bias[j] + layer.rest[j] + np.where(inside, zero, up).sum(1) - limit + 2 * layer.error[j]
        users = np.sort(order[slice(*np.searchsorted(cut[order], [begin, begin + len(some)]))])
        yield users, cut[users] - begin, np.where(inside, w, zero), step, limit


def _layer(bounds: Bounds, k: int, units: np.ndarray, named: Positions) -> _Layer:
    """Units of ReLU node k, passed back through all that is stable within bounds. named: what cuts may choose."""
    network, relu = bounds.network, bounds.network.nodes[k]
    assert isinstance(relu, Relu)
    arithmetic, zero, count = network.arithmetic, network.arithmetic.array(0), len(units)
    met: dict[int, list[tuple[slice, Array]]] = {}
    bias, error = arithmetic.zeros((count,)), arithmetic.zeros((count,))
    width = max(1, WORKING_BYTES // (8 * max(node.size for node in network.nodes)))
    for begin in range(0, count, width):
        part = slice(begin, min(count, begin + width))

        def hold(
            node: int, source: int, a: Coefficients, part: slice = part
        ) -> tuple[Coefficients, Array, Array, Beside]:
            low, high, values = bounds.lower[source], bounds.upper[source], a.dense()
            met.setdefault(node, []).append((part, np.where((low < 0) & (high > 0), values, zero)))
            charged = a.times(np.maximum(np.abs(low), np.abs(high)), absolute=True)
            passed = Coefficients(np.where(low >= 0, values, zero))
            return passed, arithmetic.zeros((1, values.shape[1])), charged, []

        found = walk(bounds, aim(relu.source, units[part]), hold)
        met.setdefault(0, []).append((part, found.inputs.dense()))
        bias[part], error[part] = found.constant[0], found.lost(zero)
    weights, ends, positions, parts, begin = [], [], [], [], 0
    rest, size, total = arithmetic.zeros((count,)), np.abs(bias), 0
    for node, pieces in met.items():
        full = arithmetic.zeros((count, network.nodes[node].size))
        for part, values in pieces:
            full[part] = values.T
        low, high = bounds.lower[node][:, 0], bounds.upper[node][:, 0]
        chosen, own = named.get(node, (np.zeros(0, np.int64), np.zeros((0, 0), np.uint8)))
        others = np.ones(len(low), dtype=bool)
        others[chosen] = False
        away = full[:, others]
        rest = rest + np.maximum(away, 0) @ high[others] + np.minimum(away, 0) @ low[others]
        size, total = size + np.abs(full) @ np.maximum(np.abs(low), np.abs(high)), total + len(low)
        if not len(chosen):
            continue
        weights.append(full[:, chosen])
        ends.append((low[chosen], high[chosen]))
        positions.append(own)
        parts.append((node, chosen, slice(begin, begin + len(chosen))))
        begin += len(chosen)
    place = np.zeros(relu.size, np.int64)
    place[units] = np.arange(count)
    low, high = (np.concatenate(side) for side in zip(*ends, strict=True))
    error = error + arithmetic.gamma(4 * total + 64) * size + arithmetic.floor
    return _Layer(
        place, np.concatenate(weights, axis=1), low, high, rest, bias, error, np.concatenate(positions, axis=1), parts
    )
