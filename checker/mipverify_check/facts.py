"""The rules of a proof: each computes bounds, or excludes conditions of a case, from earlier bounds and evidence."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from mipverify_check.arithmetic import Array
from mipverify_check.bounds import LARGEST, Aim, Bounds, Evidence, aim, interval, least, ranges
from mipverify_check.clips import GOAL, Clip, Phase, clipped, leaf_bounds
from mipverify_check.container import Proof, entries, integer, record
from mipverify_check.cuts import read as read_cuts
from mipverify_check.errors import RejectedError
from mipverify_check.input_set import InputSet
from mipverify_check.margins import with_margins
from mipverify_check.network import Network, Relu, Tensor
from mipverify_check.parameters import over_parameters
from mipverify_check.question import Case
from mipverify_check.semidefinite import least_margin, lift
from mipverify_check.trees import Splits, box_parts, phase_leaves

PASS = ("lines", "slopes", "multipliers", "inequalities")
PASS_IN_ONE_SET = (*PASS, "cuts")
MOST_BOUNDS = 2**28  # bytes of bounds that are kept at one time


@dataclass(eq=False)
class Set:
    """A case as it is worked on. excluded: by condition, whether it has been shown that nothing meets it."""

    case: Case
    network: Network
    margins: Tensor
    inputs: InputSet
    excluded: np.ndarray
    strict: np.ndarray

    def shown(self, bound: Array, condition: np.ndarray) -> np.ndarray:
        """Whether a margin of at least `bound` excludes the condition."""
        return np.asarray((bound > 0) | ((bound >= 0) & self.strict[condition]), dtype=bool)


@dataclass(eq=False)
class Checker:
    """Goes through the facts of one proof."""

    proof: Proof
    network: Network
    cases: list[Case]
    sites: list[tuple[str, int]] = field(default_factory=list)
    sets: dict[int, Set] = field(default_factory=dict)
    bounds: dict[int, tuple[int, Bounds]] = field(default_factory=dict)  # by fact: the case, and what holds of it
    clips: dict[int, Clip] = field(default_factory=dict)  # by fact: what holds of a part of a case

    def run(self) -> None:
        """Raises RejectedError at the first fact that fails, or if the facts do not exclude everything."""
        for site in entries(self.proof.header.get("sites")):
            pair = entries(site)
            if len(pair) != 2 or not isinstance(pair[0], str):
                raise RejectedError("a site is not a pair of a tensor and a number")
            self.sites.append((pair[0], integer(pair[1], 2**31)))
        facts = entries(self.proof.header.get("facts"))
        last: dict[int, int] = {}
        for i, fact in enumerate(facts):
            if isinstance(fact, dict):
                leaves = fact.get("clips")
                named = [fact.get(key) for key in ("of", "within", "from")] + (leaves if type(leaves) is list else [])
                last |= {premise: i for premise in named if isinstance(premise, int)}
        rules = {
            "interval": self.interval,
            "tighten": self.tighten,
            "exclude": self.exclude,
            "phases": self.phases,
            "boxes": self.boxes,
            "clip": self.clipped,
        }
        for i, fact in enumerate(facts):
            try:
                rule = rules.get(str(fact.get("rule"))) if isinstance(fact, dict) else None
                if rule is None:
                    raise RejectedError("its rule is not known")
                found = rule(fact)
            except RejectedError as error:
                raise RejectedError(error.reason, i) from None
            except MemoryError:
                raise RejectedError("it needs too much memory", i) from None
            except OverflowError:  # rational numbers beyond the range of floats
                raise RejectedError("it holds numbers that are too large", i) from None
            if found is not None and last.get(i, -1) > i:
                if isinstance(found, Clip):
                    self.clips[i] = found
                else:
                    self.bounds[i] = found
                kept = sum(b.nbytes for _, b in self.bounds.values()) + sum(c.nbytes for c in self.clips.values())
                if kept > MOST_BOUNDS:
                    raise RejectedError("too many bounds are kept", i)
            self.bounds = {k: v for k, v in self.bounds.items() if last[k] > i}
            self.clips = {k: v for k, v in self.clips.items() if last[k] > i}
        for k in range(len(self.cases)):
            missing = np.flatnonzero(~self.set(k).excluded)
            if missing.size:
                raise RejectedError(f"condition {missing[0]} of case {k} is never excluded")

    def set(self, number: int) -> Set:
        """Case `number` with its network of margins."""
        if number not in self.sets:
            case = self.cases[number]
            network = self.network if case.map is None else over_parameters(self.network, case.map)
            network, margins = with_margins(network, case)
            ar = network.arithmetic
            matrix, offset = ((None if m is None else ar.array(m)) for m in (case.matrix, case.offset))
            if not ar.exact and np.abs(case.box).max(initial=0.0) >= LARGEST:
                raise RejectedError("a box that reaches 2^100 and beyond: coefficients that underflow would count")
            box = ar.array(case.box)
            inputs = InputSet(ar, box[:, :1], box[:, 1:], case.ball, matrix, offset)
            strict = np.array([all(row.strict for row in rows) for rows in case.conditions], dtype=bool)
            self.sets[number] = Set(case, network, margins, inputs, np.zeros(len(strict), dtype=bool), strict)
        return self.sets[number]

    def premise(self, fact: dict[str, Any], key: str = "of") -> tuple[int, Set, Bounds]:
        number = fact[key]
        if type(number) is not int or number not in self.bounds:
            raise RejectedError(f"it rests on fact {str(number)[:20]}, which is no earlier fact about bounds")
        case, bounds = self.bounds[number]
        return case, self.set(case), bounds

    def clip(self, number: Any) -> Clip:
        """An earlier fact about clipped bounds."""
        if type(number) is not int or number not in self.clips:
            raise RejectedError(f"it rests on fact {str(number)[:20]}, which is no earlier one about clipped bounds")
        return self.clips[number]

    def clipped(self, fact: dict[str, Any]) -> Clip:
        """Bounds of what is left where a condition's margin is low."""
        return clipped(self, fact, PASS_IN_ONE_SET)

    def within(self, fact: dict[str, Any], number: int, old: Bounds) -> Bounds:
        """The bounds that passes of a fact are made within: those it rests on, or others of the same case."""
        if "within" not in fact:
            return old
        other, _, bounds = self.premise(fact, "within")
        if other != number:
            raise RejectedError("it mixes two cases")
        return bounds

    def relu(self, network: Network, site: Any) -> int:
        """The ReLU node of a site."""
        tensor, part = self.sites[integer(site, len(self.sites))]
        layers = network.relus.get(tensor, [])
        if part >= len(layers):
            raise RejectedError(f"the network has no ReLU layer {part} at {tensor[:80]!r}")
        return layers[part]

    def named(self, network: Network, site: str) -> int:
        """The same by the number of the site in a string."""
        return self.relu(network, int(site) if site.isdecimal() and len(site) < 10 else -1)

    def source(self, network: Network, site: Any) -> int:
        """The pre-activation node of a site."""
        node = network.nodes[self.relu(network, site)]
        assert isinstance(node, Relu)
        return node.source

    def evidence(self, fact: dict[str, Any], found: Set, rows: int, within: Bounds) -> Evidence:
        """The evidence of a pass of `rows` rows within bounds, or parts of these."""
        lines, network = fact.get("lines", "parallel"), found.network
        held: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {"slopes": {}, "multipliers": {}}
        if lines not in ("parallel", "adaptive", *(["interval"] if fact["rule"] == "exclude" else [])):
            raise RejectedError("its lines are of a kind that is not known")
        for key, kind in (("slopes", "uf"), ("multipliers", "f")):
            given = fact.get(key, {})
            for site, names in record(given, (), tuple(given) if isinstance(given, dict) else ()).items():
                relu = self.named(network, site)
                if len(entries(names)) != 2:
                    raise RejectedError(f"its {key} are not given as units and numbers")
                units = self.proof.array(names[0], (None,), "iu", network.nodes[relu].size)
                if len(np.unique(units)) != len(units):
                    raise RejectedError(f"its {key} name a unit twice")
                held[key][relu] = units, self.proof.array(names[1], (rows, len(units)), kind)
        weights = None
        if "inequalities" in fact:
            count = 0 if found.case.matrix is None else len(found.case.matrix)
            weights = self.proof.array(fact["inequalities"], (rows, count), "f")
        cuts = None
        if "cuts" in fact:
            cuts = read_cuts(self.proof, fact["cuts"], partial(self.named, network), within, rows)
        return Evidence(lines, held["slopes"], held["multipliers"], weights, cuts=cuts)

    def interval(self, fact: dict[str, Any]) -> tuple[int, Bounds]:
        """Interval arithmetic from the box of a case."""
        record(fact, ("rule", "case"))
        number = integer(fact["case"], len(self.cases))
        found = self.set(number)
        return number, interval(found.network, found.inputs)

    def tighten(self, fact: dict[str, Any]) -> tuple[int, Bounds]:
        """Bounds of units of one pre-activation by passes, then of all nodes behind it."""
        record(fact, ("rule", "of", "site", "units", "side"), ("within", *PASS_IN_ONE_SET))
        number, found, old = self.premise(fact)
        within = self.within(fact, number, old)
        node, side = self.source(found.network, fact["site"]), fact["side"]
        units = self.proof.array(fact["units"], (None,), "iu", found.network.nodes[node].size)
        if side not in ("lower", "upper", "both"):
            raise RejectedError("its side is not known")
        count = len(units)
        evidence = self.evidence(fact, found, 2 * count if side == "both" else count, within)
        low, high = old.lower[node][units, 0], old.upper[node][units, 0]
        if side == "both" and evidence.plain():
            values = ranges(within, aim(node, units))
            low, high = np.fmax(low, values[0]), np.fmin(high, values[1])
        else:
            signs = {"lower": [1], "upper": [-1], "both": [1, -1]}[side]
            every, sign = np.tile(units, len(signs)), np.repeat(signs, count)
            values = least(within, Aim(node, every, sign), evidence)
            low = low if side == "upper" else np.fmax(low, values[:count])
            high = high if side == "lower" else np.fmin(high, -values[-count:] if count else values[:0])
        return number, tightened(old, node, units, low[:, None], high[:, None])

    def exclude(self, fact: dict[str, Any]) -> None:
        """Conditions whose margins passes show to be positive."""
        record(fact, ("rule", "of", "conditions"), PASS_IN_ONE_SET)
        _, found, old = self.premise(fact)
        conditions = self.proof.array(fact["conditions"], (None,), "iu", len(found.excluded))
        evidence = self.evidence(fact, found, len(conditions), old)
        if evidence.lines == "interval":
            values = old.lower[found.margins.node][conditions, 0]
        else:
            values = least(old, aim(found.margins.node, conditions), evidence)
        shown = found.shown(values, conditions) | bool(old.empty[0])
        if not shown.all():
            at = int(np.flatnonzero(~shown)[0])
            raise RejectedError(
                f"the margin of condition {conditions[at]} is only shown to be above {float(values[at])}"
            )
        found.excluded[conditions] = True

    def phases(self, fact: dict[str, Any]) -> tuple[int, Bounds] | None:
        """A case distinction on phases of ReLUs: a condition is excluded, or a unit bounded, in all leaves."""
        record(
            fact,
            ("rule", "of", "tree"),
            (*GOAL, "empty", "within", "semidefinite", "clips", *PASS_IN_ONE_SET),
        )
        number, found, old = self.premise(fact)
        within = self.within(fact, number, old)
        network = found.network
        tree = self.proof.array(fact["tree"], (None, 2), "i")
        sources = {site: self.source(network, site) for site in np.unique(tree[:, 0]).tolist() if site >= 0}
        leaves, splits = phase_leaves(tree, {k: (node, network.nodes[node].size) for k, node in sources.items()})
        evidence = replace(self.evidence(fact, found, leaves, within), splits=splits)
        vacant = np.zeros(leaves, np.int64)
        if "empty" in fact:
            vacant += self.proof.array(fact["empty"], (leaves,), "iu", 2)
        gone = np.full(leaves, bool(within.empty[0]))
        for node, (units, rows, signs) in splits.items():
            low, high = within.lower[node][units, 0], within.upper[node][units, 0]
            gone[rows[np.where(signs > 0, high < 0, low > 0).astype(bool)]] = True
        node, unit, sign = goal = self.goal(fact, found)
        margin = Aim(node, np.full(leaves, unit), sign * (1 - vacant))
        if "clips" in fact:
            values = leaf_bounds(self, fact, number, goal, within, margin, evidence, vacant)
        else:
            values = least(within, margin, evidence)
        if "semidefinite" in fact:
            if "condition" not in fact:
                raise RejectedError("a semidefinite bound of a unit")
            self.lifted(fact["semidefinite"], within, aim(node, np.array([unit])), splits, values)
        gone |= (vacant == 1) & (values > 0).astype(bool)
        if "condition" in fact:
            shown = gone | ((vacant == 0) & found.shown(values, np.full(leaves, unit)))
            if not shown.all():
                at = int(np.flatnonzero(~shown)[0])
                raise RejectedError(f"leaf {at} is only shown to be above {float(values[at])}")
            found.excluded[unit] = True
            return None
        known = np.full(leaves, sign * (old.lower if sign > 0 else old.upper)[node][unit, 0], dtype=values.dtype)
        if node in splits:
            units, rows, signs = splits[node]
            own = rows[(units == unit) & (signs == sign)]
            known[own] = np.maximum(known[own], 0)
        reached = np.fmax(known, np.where(vacant == 1, known, values))[~gone]
        low, high = old.lower[node][[unit]], old.upper[node][[unit]]
        if not reached.size:  # no leaf holds an input, nor then does the set
            low = high + 1
        elif sign > 0:
            low = np.full((1, 1), reached.min(), dtype=values.dtype)
        else:
            high = np.full((1, 1), -reached.min(), dtype=values.dtype)
        return number, tightened(old, node, np.array([unit]), low, high)

    def goal(self, fact: dict[str, Any], found: Set) -> Phase:
        """What a fact is about: a condition (the node of margins, which, and 1), or one side of a unit."""
        if "condition" in fact:
            if not {"site", "unit", "side"}.isdisjoint(fact):
                raise RejectedError("it is about a condition and about a unit")
            return found.margins.node, integer(fact["condition"], len(found.excluded)), 1
        if fact.get("side") not in ("lower", "upper"):
            raise RejectedError("it is neither about a condition nor about one side of a unit")
        node = self.source(found.network, fact.get("site"))
        return node, integer(fact.get("unit"), found.network.nodes[node].size), -1 if fact["side"] == "upper" else 1

    def lifted(self, given: Any, bounds: Bounds, margin: Aim, splits: Splits, values: Array) -> None:
        """Put the semidefinite bounds of some leaves in the place of `values`."""
        names = ("leaves", "site", "units", "shares", "alpha", "beta")
        parts, network = record(given, names), bounds.network
        relu, source = self.relu(network, parts["site"]), self.source(network, parts["site"])
        leaves = self.proof.array(parts["leaves"], (None,), "iu", len(values))
        units = self.proof.array(parts["units"], (None,), "iu", network.nodes[relu].size)
        if len(np.unique(units)) != len(units):
            raise RejectedError("a unit is named twice")
        sizes = {"shares": len(units), "alpha": network.nodes[0].size, "beta": len(units) + 1}
        evidence = [self.proof.array(parts[name], (len(leaves), size), "f") for name, size in sizes.items()]
        function = lift(bounds, margin, relu, units)
        split, which, phase = splits.get(source, (np.zeros(0, np.int64),) * 3)
        for leaf, shares, alpha, beta in zip(leaves.tolist(), *evidence, strict=True):
            signs = np.zeros(network.nodes[relu].size, np.int64)
            signs[split[which == leaf]] = phase[which == leaf]
            values[leaf] = least_margin(function, signs[units], shares, alpha, beta)

    def boxes(self, fact: dict[str, Any]) -> None:
        """A case distinction on the input box: in every part, each condition is excluded there or further up."""
        record(fact, ("rule", "of", "conditions", "axis", "at", "closed", "sites"), PASS)
        _, found, old = self.premise(fact)
        network = found.network
        conditions = self.proof.array(fact["conditions"], (None,), "iu", len(found.excluded))
        axis = self.proof.array(fact["axis"], (None,), "i")
        at = self.proof.array(fact["at"], (len(axis),), "f").astype(np.float64)
        closed = self.proof.array(fact["closed"], (None, 2), "iu")
        if closed.size and (closed.min() < 0 or (closed.max(0) >= [len(axis), len(conditions)]).any()):
            raise RejectedError("it closes what is not there")
        evidence = self.evidence(fact, found, len(closed), old)
        tight = [self.source(network, site) for site in entries(fact["sites"])]
        needed = np.unique(closed[:, 0])
        low, high = box_parts(axis, at, closed, len(conditions), found.case.box, needed)
        step = max(1, 2**21 // sum(node.size for node in network.nodes))
        for begin in range(0, len(needed), step):
            own = slice(begin, begin + step)
            lower, upper = (network.arithmetic.array(side[:, own]) for side in (low, high))
            bounds = interval(network, replace(found.inputs, lower=lower, upper=upper))
            for node in tight:
                for lines in ("parallel", "adaptive"):
                    bounds = _tighten_unstable(bounds, node, lines)
            rows = np.flatnonzero(np.isin(closed[:, 0], needed[own]))
            column = np.searchsorted(needed[own], closed[rows, 0])
            aims = conditions[closed[rows, 1]]
            values = least(bounds, aim(found.margins.node, aims, column=column), _chosen(evidence, rows))
            shown = found.shown(values, aims) | bounds.empty[column]
            if not shown.all():
                worst = int(np.flatnonzero(~shown)[0])
                raise RejectedError(f"box {closed[rows[worst], 0]} is only shown to be above {float(values[worst])}")
        found.excluded[conditions] = True


def tightened(old: Bounds, node: int, units: np.ndarray, low: Array, high: Array) -> Bounds:
    """`old` with bounds (U, columns) of units of a node, and interval arithmetic anew for all nodes behind it."""
    lower, upper = list(old.lower), list(old.upper)
    lower[node], upper[node] = lower[node].copy(), upper[node].copy()
    lower[node][units], upper[node][units] = low, high
    known = Bounds(old.network, old.set, lower, upper, old.magnitudes, old.deviations)
    return interval(old.network, old.set, known, node + 1)


def _tighten_unstable(bounds: Bounds, node: int, lines: str) -> Bounds:
    """Units of a pre-activation that are unstable in some column, bounded by passes in these columns."""
    units, column = np.nonzero((bounds.lower[node] < 0) & (bounds.upper[node] > 0))
    if not units.size:
        return bounds
    if lines == "parallel":
        low, high = ranges(bounds, aim(node, units, column=column))
    else:
        every, sign = np.tile(units, 2), np.repeat([1, -1], len(units))
        values = least(bounds, Aim(node, every, sign, np.tile(column, 2)), Evidence(lines))
        low, high = values[: len(units)], -values[len(units) :]
    lower, upper = bounds.lower[node].copy(), bounds.upper[node].copy()
    lower[units, column] = np.fmax(lower[units, column], low)
    upper[units, column] = np.fmin(upper[units, column], high)
    return tightened(bounds, node, np.arange(len(lower)), lower, upper)


def _chosen(evidence: Evidence, rows: np.ndarray) -> Evidence:
    """The evidence of some rows."""

    def cut(held: dict[int, tuple[np.ndarray, np.ndarray]]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        return {k: (units, numbers[rows]) for k, (units, numbers) in held.items()}

    inequalities = None if evidence.inequalities is None else evidence.inequalities[rows]
    return Evidence(evidence.lines, cut(evidence.slopes), cut(evidence.multipliers), inequalities)
