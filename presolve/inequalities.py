"""Multipliers of the inequalities that tie two networks together (`mipverify.network.pair`): where a search begins.

A pre-activation r that is never negative may be taken off a row with any multiplier mu >= 0. Where it takes a ReLU of
the first network and the same one of the second off the row together, what is left of them is a ReLU of their
difference, whose relaxation is as narrow as the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mipverify.network import Affine, Network, Relu
from mipverify.network.operators import Index
from mipverify.network.reverse import through_terms
from mipverify.proof.backward import Evidence, estimate_backward, pick
from mipverify.proof.bounds import Intervals
from mipverify.proof.rows import Rows, unit_rows

STEP = 0.04  # of the coefficient that a ReLU is met with, in the unit that steps of multipliers are measured in


@dataclass(frozen=True, eq=False)
class Link:
    """The units of a ReLU node that the inequalities of another one are about, one for each: (m,) flat units, and 1 or
    -1 as they enter; 0 where one has none there."""

    relu: int
    units: np.ndarray
    factors: np.ndarray


def links(network: Network) -> dict[int, list[Link]]:
    """By ReLU node of `Network.inequalities`, what its inequalities are about."""
    return {node: _links(network, node) for node in network.inequalities}


def _links(network: Network, node: int) -> list[Link]:
    source = network.relu_source(node)
    size = int(np.prod(network.nodes[source].shape))
    rows = dict(unit_rows(network, source, np.arange(size), None, np.zeros(1)).coefficients)
    for index in sorted(rows, reverse=True):
        held = network.nodes[index]
        if isinstance(held, Affine) and all(isinstance(term.operator, Index) for term in held.terms):
            for earlier, back in through_terms(network, held, rows.pop(index)):
                rows[earlier] = rows[earlier] + back if earlier in rows else back
    found = []
    for index, array in sorted(rows.items()):
        flat = array.reshape(size, -1)
        if isinstance(network.nodes[index], Relu) and flat.any():
            units = np.abs(flat).argmax(axis=1)
            found.append(Link(index, units, flat[np.arange(size), units]))
    return found


def known_signs(
    intervals: Intervals, shapes: Mapping[int, tuple[int, ...]], samples: np.ndarray | None
) -> dict[int, np.ndarray]:
    """By the ReLU nodes of `Network.inequalities`, +1 where a pre-activation is known not to be negative, else 0."""
    found = {}
    for node in intervals.network.inequalities:
        if node in shapes:
            lower = pick(intervals.lower[intervals.network.relu_source(node)], samples)
            found[node] = np.broadcast_to((lower >= 0).astype(np.float32), shapes[node])
    return found


def starting_multipliers(
    intervals: Intervals, rows: Rows, signs: Mapping[int, np.ndarray], linked: Mapping[int, list[Link]]
) -> dict[int, np.ndarray]:
    """By ReLU node multipliers (R, m) of what `signs` allow: as large as takes two ReLUs together off a row."""
    found: dict[int, np.ndarray] = {}
    for node in sorted(signs, reverse=True):
        passed = estimate_backward(intervals, rows, Evidence(multipliers=found), keep=True).passed
        values, unstable = [], np.zeros(signs[node].shape, bool)
        for link in linked[node]:
            values.append(_met(passed, link, len(rows)) * link.factors)
            free = pick(np.asarray(intervals.unstable(link.relu)), rows.samples)
            unstable |= free.reshape(len(free), -1)[:, link.units] & (link.factors != 0)
        every = np.stack(values)
        together = (every > 0).sum(axis=0) >= 2
        least = np.where(every > 0, every, np.inf).min(axis=0)
        found[node] = np.where(together & unstable, least, 0).astype(np.float32) * signs[node]
    return found


def steps(
    passed: Mapping[int, np.ndarray], linked: Mapping[int, list[Link]], nodes: Mapping[int, np.ndarray], count: int
) -> dict[int, np.ndarray]:
    """What steps of multipliers are measured in, by ReLU node (R, m): a share of the coefficients that ReLUs are met
    with."""
    return {
        node: STEP * np.max([np.abs(_met(passed, link, count) * link.factors) for link in linked[node]], axis=0)
        for node in nodes
        if node in linked
    }


def _met(passed: Mapping[int, np.ndarray], link: Link, count: int) -> np.ndarray:
    """The coefficients (R, m) with which linked units are met."""
    if link.relu not in passed:
        return np.zeros((count, len(link.units)), np.float32)
    return np.asarray(passed[link.relu].reshape(count, -1)[:, link.units])


def differences(network: Network) -> list[int]:
    """The pre-activations of those ReLU nodes of which all units are about inequalities, one each: differences."""
    found: dict[int, None] = {}
    for linked in links(network).values():
        for link in linked:
            size = int(np.prod(network.nodes[link.relu].shape))
            if np.array_equal(link.units, np.arange(size)):
                found[network.relu_source(link.relu)] = None
    return sorted(found)
