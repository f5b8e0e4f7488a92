"""Domain clipping: bounds on the part of a set where a margin or a unit is low and some units have given phases.

Nothing else may be concluded from them than about that part: they are kept apart from bounds of whole sets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mipverify_check.arithmetic import Array
from mipverify_check.bounds import Aim, Bounds, Evidence, least, planes, under
from mipverify_check.container import entries, integer, record
from mipverify_check.errors import RejectedError
from mipverify_check.trees import Splits

if TYPE_CHECKING:
    from mipverify_check.facts import Checker, Set

GOAL = ("condition", "site", "unit", "side")
Phase = tuple[int, int, int]  # pre-activation node, unit, and sign: 1 where z >= 0, -1 where z <= 0


@dataclass(frozen=True, eq=False)
class Clip:
    """Bounds of the inputs of a case that meet `phases`, and at which `goal` is at most `level`.

    goal: node, unit and sign: of a condition, its margin and 1.
    """

    case: int
    goal: Phase
    level: float
    phases: frozenset[Phase]
    bounds: Bounds
    nbytes: int  # of what these do not share with bounds of the whole set

    def require(self, case: int, goal: Phase, phases: frozenset[Phase]) -> None:
        """Raises RejectedError where these inputs are not all that matters under `phases`."""
        if self.case != case or self.goal != goal or not self.phases <= phases:
            raise RejectedError("it rests on clipped bounds of other inputs")


def clipped(checker: Checker, fact: dict[str, Any], passing: tuple[str, ...]) -> Clip:
    """The fact of the rule `clip`. passing: the keys of evidence that the row's pass may have."""
    record(fact, ("rule", "of", "splits", "level", "planes", "layers"), ("from", *GOAL, *passing))
    number, found, whole = checker.premise(fact)
    goal, level = checker.goal(fact, found), fact["level"]
    if not isinstance(level, float) or not math.isfinite(level) or level <= 0:
        raise RejectedError("its level is no number above zero")
    if found.inputs.matrix is not None or "inequalities" in fact:
        raise RejectedError("it clips a set that inequalities cut already")
    phases = _phases(checker, found, fact["splits"])
    old, outer = whole, checker.clip(fact["from"]) if "from" in fact else None
    if outer is not None:
        outer.require(number, goal, frozenset(phases))
        old = outer.bounds
    by_node = {node: np.array([(u, s) for n, u, s in phases if n == node]).T for node in {n for n, _, _ in phases}}
    splits = {node: (pairs[0], pairs[1]) for node, pairs in by_node.items()}
    bounds = under(old, found.inputs, splits)
    evidence = checker.evidence(fact, found, 1, whole)
    cuts = [planes(bounds, _aim(goal), evidence)]
    for node, unit, sign in _phases(checker, found, fact["planes"]):
        if (node, unit, sign) not in phases:
            raise RejectedError("a plane of a unit that is not split")
        cuts.append(planes(bounds, _aim((node, unit, -sign)), Evidence("adaptive")))
    bounds = replace(bounds, set=_cut(found, cuts, level), _lines={})
    for layer in entries(fact["layers"]):
        bounds = _layer(checker, found, bounds, layer, len(cuts))
    bounds = replace(bounds, set=found.inputs, _lines={})  # the planes have done what they are for
    shared = {id(side) for side in (*whole.lower, *whole.upper)}
    size = sum(int(side.nbytes) for side in (*bounds.lower, *bounds.upper) if id(side) not in shared)
    level = level if outer is None else min(level, outer.level)  # where bounds of both hold
    return Clip(number, goal, level, frozenset(phases), bounds, size)


def _aim(of: Phase) -> Aim:
    return Aim(of[0], np.array([of[1]]), np.array([of[2]]))


def _phases(checker: Checker, found: Set, name: Any) -> list[Phase]:
    """An array of sites, units and signs."""
    given, phases = checker.proof.array(name, (None, 3), "iu"), []
    for site, unit, sign in given.tolist():
        node = checker.source(found.network, site)
        if sign not in (1, -1):
            raise RejectedError("a phase is neither 1 nor -1")
        phases.append((node, integer(unit, found.network.nodes[node].size), sign))
    return phases


def _cut(found: Set, cuts: list[tuple[Array, Array]], level: float) -> Any:
    """The box with a . x <= level - c for the first plane, and a . x <= -c for the others."""
    ar = found.network.arithmetic
    levels = ar.array(np.array([level] + [0.0] * (len(cuts) - 1)))
    constant = np.concatenate([c for _, c in cuts])
    above = (levels - constant) + ar.gamma(4) * (np.abs(levels) + np.abs(constant)) + ar.floor
    return replace(found.inputs, matrix=np.concatenate([a for a, _ in cuts]), offset=above)


def _layer(checker: Checker, found: Set, bounds: Bounds, given: Any, count: int) -> Bounds:
    """Units of one pre-activation bounded by passes over what planes leave; later nodes keep what they have."""
    parts = record(given, ("site", "units", "signs", "multipliers"))
    node = checker.source(found.network, parts["site"])
    units = checker.proof.array(parts["units"], (None,), "iu", found.network.nodes[node].size)
    signs = checker.proof.array(parts["signs"], (len(units),), "iu")
    if not np.isin(signs, (1, -1)).all():
        raise RejectedError("a sign is neither 1 nor -1")
    mu = checker.proof.array(parts["multipliers"], (len(units), count), "f")
    values = least(bounds, Aim(node, units, signs), Evidence("adaptive", inequalities=mu))
    lower, upper = list(bounds.lower), list(bounds.upper)
    for side, sign in ((lower, 1), (upper, -1)):
        own, better = signs == sign, np.fmax if sign > 0 else np.fmin
        if len(np.unique(units[own])) != own.sum():
            raise RejectedError("a side of a unit is named twice")
        side[node] = side[node].copy()
        side[node][units[own], 0] = better(side[node][units[own], 0], sign * values[own])
    return replace(bounds, lower=lower, upper=upper, _lines={})


def _of_leaves(splits: Splits, leaves: int) -> list[frozenset[Phase]]:
    """What each leaf of a tree knows of phases."""
    found: list[set[Phase]] = [set() for _ in range(leaves)]
    for node, (units, rows, signs) in splits.items():
        for unit, leaf, sign in zip(units.tolist(), rows.tolist(), signs.tolist(), strict=True):
            found[leaf].add((node, unit, sign))
    return [frozenset(own) for own in found]


def leaf_bounds(
    checker: Checker,
    fact: dict[str, Any],
    case: int,
    goal: Phase,
    whole: Bounds,
    rows: Aim,
    evidence: Evidence,
    vacant: np.ndarray,
) -> Array:
    """The bounds (L,) of the leaves of a tree about a goal, each within its own clipped bounds or those of the whole.

    Beyond clipped bounds the goal is above their level, so that a bound within them is one of the leaf up to that.
    vacant (L,): 1 where a row begins as zero, to show that no input is there. Where it shows that of clipped bounds,
    the goal is above their level, and the leaf is vacant no more.
    """
    numbers = entries(fact["clips"])
    if len(numbers) != len(vacant):
        raise RejectedError("clipped bounds are not given for each leaf")
    values = []
    for k, (number, phases) in enumerate(zip(numbers, _of_leaves(evidence.splits, len(vacant)), strict=True)):
        clip = None if number is None else checker.clip(number)
        bounds = whole if clip is None else replace(clip.bounds, _lines={})  # which go with it
        value = least(bounds, rows.part(k, k + 1), evidence.part(k, k + 1))
        if clip is not None:
            clip.require(case, goal, phases)
            ends = ((s, (bounds.upper if s > 0 else bounds.lower)[node][unit, 0]) for node, unit, s in phases)
            crossed = any(s * end < 0 for s, end in ends)
            level = whole.network.arithmetic.array(np.array([clip.level]))
            if crossed or bounds.empty[0] or (vacant[k] and value[0] > 0):
                value, vacant[k] = level, 0
            value = np.minimum(value, level)
        values.append(value)
    return np.concatenate(values)
