"""Input sets in parts: a box halved again and again, where each part is closed, cut or halved further.

The ledger of a search on the input box. It keeps which parts of the box are open for which rows, and hands out nothing
but what follows from the parts that were closed. What becomes of some parts may be worked out in another process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mipverify.proof.bounds import Bounds
from mipverify.proof.box_tree import BoxTree, Halving, PartsOf, boxed
from mipverify.proof.derivation import Pass
from mipverify.proof.facts import SEAL, Claim, RowBounds, Scope, Sealed, UnitBounds
from mipverify.proof.interval import interval_inside, tighten
from mipverify.proof.rounding import floor, gamma
from mipverify.proof.rows import LinearBounds

CLEARANCE = 1e-6  # points at which a row is proven to be above this are cut off a box


@dataclass(frozen=True, eq=False)
class Inherited(Sealed):
    """Bounds of pre-activations over boxes lower, upper (K, n): flat arrays (K, units), (K, units) by node.

    root: key of the input set that the boxes are parts of.
    """

    lower: np.ndarray
    upper: np.ndarray
    arrays: Mapping[int, tuple[np.ndarray, np.ndarray]]
    root: bytes

    def take(self, part: np.ndarray) -> Inherited:
        """Those of some boxes, by index."""
        arrays = {node: (low[part], high[part]) for node, (low, high) in self.arrays.items()}
        return Inherited(self.lower[part], self.upper[part], arrays, self.root, seal=SEAL)

    @staticmethod
    def join(several: Sequence[Inherited]) -> Inherited:
        """Those of all boxes, one after the other, of the nodes that all have."""
        nodes = set.intersection(*(set(own.arrays) for own in several))
        arrays = {}
        for node in nodes:
            pairs = [own.arrays[node] for own in several]
            arrays[node] = np.concatenate([low for low, _ in pairs]), np.concatenate([high for _, high in pairs])
        lower, upper = (np.concatenate([getattr(own, side) for own in several]) for side in ("lower", "upper"))
        if len({own.root for own in several}) > 1:
            raise ValueError("boxes of different input sets")
        return Inherited(lower, upper, arrays, several[0].root, seal=SEAL)

    @property
    def bytes(self) -> int:
        """Size of its arrays."""
        return sum(low.nbytes + high.nbytes for low, high in self.arrays.values())


@dataclass(frozen=True, eq=False)
class Boxes(Sealed):
    """Parts lower, upper (K, n) of an input box: open (K, C) for some rows, with what is proven of these (K, C).

    claims: what the rows stand for, one each. root: key of the input set.
    """

    lower: np.ndarray
    upper: np.ndarray
    open: np.ndarray
    bound: np.ndarray
    claims: tuple[Claim, ...]
    root: bytes
    key: bytes = field(default_factory=lambda: os.urandom(16))

    def __len__(self) -> int:
        return len(self.lower)

    def _take(self, part: np.ndarray) -> Boxes:
        arrays = self.lower[part], self.upper[part], self.open[part], self.bound[part]
        return Boxes(*arrays, self.claims, self.root, seal=SEAL)


@dataclass(frozen=True, eq=False)
class Settled(Sealed):
    """What became of the boxes with the key `parent`: those that are left, and the least bounds (C,) of the others."""

    parent: bytes
    rest: Boxes | None
    reached: np.ndarray
    closed: Mapping[tuple[int, int], tuple[Pass, int]] = field(default_factory=dict)
    halving: Halving | None = None


class BoxCases:
    """The parts of one input box that are open for some rows (C,), each given by a claim of one row.

    bounds: of the whole box (batch 1). A claim of several units (1, m) is about the largest of them.
    """

    def __init__(self, bounds: Bounds, claims: Sequence[Claim]):
        if bounds.batch != 1 or bounds.scope.assumptions is not None:
            raise ValueError("boxes are parts of one input set, under which nothing is assumed")
        if any(len(claim.units) != 1 or not (np.asarray(claim.factors) == 1).all() for claim in claims):
            raise ValueError("a row is one unit, or the largest of some (1, m)")
        self.scope, self.claims = bounds.scope, tuple(claims)
        width = len(claims)
        lower, upper = (side[0].reshape(1, -1).copy() for side in (bounds.lower, bounds.upper))
        arrays = lower, upper, np.ones((1, width), bool), np.full((1, width), -np.inf)
        self.root = Boxes(*arrays, self.claims, bounds.scope.key, seal=SEAL)
        self._open = {self.root.key: self.root}
        self._reached = np.full(width, np.inf)
        self._bounds = bounds
        self._tree = None if bounds.derivation is None else BoxTree()
        self._numbers = {self.root.key: np.zeros(1, int)}  # of the boxes in the tree

    def deal(self, boxes: Boxes, parts: Sequence[np.ndarray]) -> list[Boxes]:
        """Open boxes in parts, each by index. Raises ValueError where a box would be lost."""
        indices = all(np.issubdtype(part.dtype, np.integer) for part in parts)
        if not indices or not np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(boxes))):
            raise ValueError("each box belongs to one part")
        given_out = [boxes._take(part) for part in parts]
        del self._open[boxes.key]
        self._open.update((part.key, part) for part in given_out)
        numbers = self._numbers.pop(boxes.key)
        self._numbers.update((own.key, numbers[part]) for own, part in zip(given_out, parts, strict=True))
        return given_out

    def join(self, several: Sequence[Boxes]) -> Boxes:
        """Open boxes as one."""
        if len({boxes.key for boxes in several}) < len(several) or any(b.key not in self._open for b in several):
            raise KeyError("boxes that are open are joined, each once")
        lower, upper, open_, bound = (
            np.concatenate([getattr(boxes, name) for boxes in several]) for name in ("lower", "upper", "open", "bound")
        )
        joined = Boxes(lower, upper, open_, bound, self.claims, self.scope.key, seal=SEAL)
        for boxes in several:
            del self._open[boxes.key]
        self._open[joined.key] = joined
        self._numbers[joined.key] = np.concatenate([self._numbers.pop(boxes.key) for boxes in several])
        return joined

    def settle(self, done: Settled) -> None:
        """Put what is left of open boxes in their place. KeyError where they are not open."""
        del self._open[done.parent]
        self._reached = np.minimum(self._reached, done.reached)
        numbers = self._numbers.pop(done.parent)
        if self._tree is not None:
            numbers = self._tree.settle(numbers, done.closed, done.halving)
        if done.rest is not None:
            self._open[done.rest.key] = done.rest
            self._numbers[done.rest.key] = numbers if self._tree is not None else np.zeros(len(done.rest), int)

    def proven(self) -> list[RowBounds]:
        """Lower bounds of the rows over the whole box, one fact each."""
        lower = self._reached.copy()
        for boxes in self._open.values():
            lower = np.minimum(lower, np.where(boxes.open, boxes.bound, np.inf).min(axis=0, initial=np.inf))
        return [
            RowBounds(
                self.scope,
                claim,
                None,
                lower[k : k + 1],
                seal=SEAL,
                derivation=boxed(self._bounds, self.claims, self._tree, k),
            )
            for k, claim in enumerate(self.claims)
        ]


def part_bounds(root: Bounds, boxes: Boxes, inherited: Inherited | None) -> Bounds:
    """Bounds over boxes, by interval arithmetic and what is inherited from boxes around them.

    Raises ValueError where a box lies outside of that.
    """
    shape = (len(boxes), *root.network.input_shape)
    if boxes.root != root.scope.key:
        raise ValueError("the boxes are parts of another input set")
    found = interval_inside(root, boxes.lower.reshape(shape), boxes.upper.reshape(shape))
    if inherited is None or found.derivation is not None:
        return found  # what is inherited has no derivation
    outside = (boxes.lower < inherited.lower).any() or (boxes.upper > inherited.upper).any()
    if outside or inherited.root != root.scope.key:
        raise ValueError("a box lies outside of the one that its bounds are of")
    samples = np.arange(len(boxes))[:, None]
    return tighten(
        found,
        (
            UnitBounds(found.scope, node, samples, np.arange(low.shape[1])[None], low, high, seal=SEAL)
            for node, (low, high) in inherited.arrays.items()
        ),
    )


@dataclass(frozen=True, eq=False)
class BoxParts(Sealed):
    """Outside of lower, upper (M, n), parts of the boxes `at` (M,) of a batch, the largest of some units of a node (m,)
    is above CLEARANCE. A part with a lower bound above its upper one is empty."""

    scope: Scope
    node: int
    units: np.ndarray
    at: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def empty(self) -> np.ndarray:
        """Which parts (M,) are."""
        return np.asarray((self.lower > self.upper).any(axis=1))

    def and_outside(self, other: BoxParts) -> BoxParts:
        """What both leave. Raises ValueError where they are about other units or boxes."""
        same = self.scope.key == other.scope.key and self.node == other.node and np.array_equal(self.at, other.at)
        if not same or not np.array_equal(np.sort(self.units), np.sort(other.units)):
            raise ValueError("parts of different boxes")
        lower, upper = np.maximum(self.lower, other.lower), np.minimum(self.upper, other.upper)
        return BoxParts(self.scope, self.node, self.units, self.at, lower, upper, seal=SEAL)


def shrink(linear: LinearBounds, found: RowBounds, units: np.ndarray) -> BoxParts:
    """The parts of boxes (M,) outside of which some of their rows (count * M, all of the first row first) is high.

    found: the minima of the rows. units (m,): of which each row stands for one, or for the largest. For each coordinate
    by itself: it moves away from its end, while the others stay at their best. Minima over less than a box say nothing
    about one coordinate of it. Raises ValueError where the facts do not belong together.
    """
    claim, bounds, samples = linear.claim, linear.bounds, linear.samples
    if claim is None or samples is None or found.scope.key != bounds.scope.key or found.of != linear.key:
        raise ValueError("the minima are not those of the rows")
    if not np.isin(claim.units, units).all() or not (np.asarray(claim.factors) == 1).all():
        raise ValueError("the rows stand for other units")
    at = np.unique(samples)
    if not np.array_equal(np.tile(at, len(samples) // len(at)), samples):
        raise ValueError("as many rows are needed for each box, all of the first row first")
    lower, upper = (side[0].reshape(len(side[0]), -1)[at] for side in (bounds.lower, bounds.upper))
    if not bounds.over_boxes:
        return BoxParts(bounds.scope, claim.node, units, at, lower, upper, seal=SEAL)
    a, minima = linear.coefficients.reshape(-1, *lower.shape), found.lower.reshape(-1, len(at))
    room = np.where(np.isfinite(minima), np.maximum(CLEARANCE - minima, 0.0), np.inf)[..., None]
    step = np.divide(room, np.abs(a), out=np.full(a.shape, np.inf), where=np.abs(a) > 1e-300)
    # Rounded outward by more than these few operations can lose.
    step = step * (1 + 1e-13) + 1e-14 * (np.abs(lower) + np.abs(upper)) + floor(a)
    high = np.minimum(np.where(a > 0, lower + step, upper).min(axis=0), upper)
    low = np.maximum(np.where(a < 0, upper - step, lower).max(axis=0), lower)
    return BoxParts(bounds.scope, claim.node, units, at, low, high, seal=SEAL)


def largest(found: RowBounds, count: int) -> RowBounds:
    """The largest of `count` rows for each of some boxes, from facts about all of them, all of the first row first."""
    claim, samples = found.claim, found.entries()
    at = samples[: len(samples) // count]
    if claim is None or not np.array_equal(np.tile(at, count), samples) or not (np.asarray(claim.factors) == 1).all():
        raise ValueError("as many rows are needed for each box, all of the first row first")
    units = claim.units.reshape(count, -1).T
    lower = np.asarray(found.lower).reshape(count, -1).max(axis=0)
    return RowBounds(found.scope, Claim(claim.node, units, np.ones(len(at))), at, lower, seal=SEAL)


def combined(linear: LinearBounds, weights: np.ndarray) -> LinearBounds:
    """For each of some boxes (M,) one row below the largest of its rows (count * M, all of the first row first).

    weights (count, M): of the rows, the positive ones count, made to add up to one. What rounding does to that, and so
    to what a combination says of the largest, is relative to the rows' absolute values.
    """
    claim, bounds, samples = linear.claim, linear.bounds, linear.samples
    count, size = weights.shape
    if claim is None or samples is None or not np.array_equal(np.tile(samples[:size], count), samples):
        raise ValueError("as many rows are needed for each box, all of the first row first")
    if not (np.asarray(claim.factors) == 1).all():
        raise ValueError("the rows stand for multiples of units")
    weights = np.maximum(np.nan_to_num(np.asarray(weights, linear.coefficients.dtype), posinf=0.0), 0.0)
    highest = weights.max(axis=0)  # first, so that the sum does not overflow
    weights = weights / np.where(highest > 0, highest, 1.0)
    total = weights.sum(axis=0)
    weights = np.where(total > 0, weights / np.where(total > 0, total, 1.0), 1.0 / count)

    def weighted(values: np.ndarray) -> np.ndarray:
        values = values.reshape(count, size, *values.shape[1:])
        return np.asarray((weights.reshape(count, size, *[1] * (values.ndim - 2)) * values).sum(axis=0))

    error = weighted(np.asarray(linear.error)) * (1 + 1e-12)
    error = error + gamma(4 * count + 16, error) * weighted(linear.size) * (1 + 1e-12)
    units = claim.units.reshape(count, size).T
    own = Claim(claim.node, units, np.ones(size))
    passed = {node: weighted(a) for node, a in linear.passed.items()}
    coefficients, constant = weighted(linear.coefficients), weighted(linear.constant)
    return LinearBounds(coefficients, constant, passed, {}, error, bounds, own, samples[:size], seal=SEAL)


class Settlement:
    """What becomes of some boxes: what is known of their rows is learned, and what is left of them halved.

    bounds: of these boxes (`part_bounds`, or tightened).
    """

    def __init__(self, boxes: Boxes, bounds: Bounds):
        sides = (side[0].reshape(len(boxes), -1) for side in (bounds.lower, bounds.upper))
        if not all(np.array_equal(a, b) for a, b in zip(sides, (boxes.lower, boxes.upper), strict=True)):
            raise ValueError("the bounds are of other boxes")
        if boxes.root not in bounds.scope.wider or bounds.scope.assumptions is not None:
            raise ValueError("the bounds are of another input set")
        self._boxes, self._bounds, self._claims = boxes, bounds, boxes.claims
        self._shown: dict[tuple[int, int], tuple[Pass, int]] = {}
        self._bound = np.where(boxes.open, boxes.bound, np.inf)
        # What is left of a box is the hull of what its open rows leave of it.
        self._lower, self._upper = np.full_like(boxes.lower, np.inf), np.full_like(boxes.upper, -np.inf)
        self._whole = boxes.open.copy()  # rows that leave all of a box, for all that is known

    def learn(self, row: int, found: RowBounds) -> None:
        """Take over what is known of a row in the boxes that the fact is about.

        Where derivations are recorded, only what a pass shows.
        """
        claim, at = found.claim, found.entries()
        if claim is None or not self._about(row, found.scope, claim.node, claim.units.reshape(len(at), -1)):
            raise ValueError("the fact is about something else")
        if not (np.asarray(claim.factors) == 1).all():
            raise ValueError("the fact is about multiples of the row")
        if self._bounds.derivation is not None:
            how = found.derivation
            if not isinstance(how, Pass):
                return
            # Without what its bounds came from, which is the same for all boxes.
            own = replace(how, within=PartsOf(self._bounds.derivation))
            for place in np.flatnonzero((found.lower > 0) & ~(self._bound[at, row] > 0)).tolist():
                self._shown[int(at[place]), row] = own, place
        self._bound[at, row] = np.fmax(self._bound[at, row], found.lower)

    def leave(self, row: int, parts: BoxParts) -> None:
        """Take over which parts of their boxes a row leaves, but where derivations are recorded: all is left then."""
        if not self._about(row, parts.scope, parts.node, parts.units[None]):
            raise ValueError("the parts are those of something else")
        if self._bounds.derivation is not None:
            return
        empty, at = parts.empty, parts.at
        self._bound[at[empty], row] = np.maximum(self._bound[at[empty], row], CLEARANCE)
        some = at[~empty]
        self._lower[some] = np.minimum(self._lower[some], parts.lower[~empty])
        self._upper[some] = np.maximum(self._upper[some], parts.upper[~empty])
        self._whole[at, row] = False

    def _about(self, row: int, scope: Scope, node: int, units: np.ndarray) -> bool:
        own = self._claims[row]
        if scope.key != self._bounds.scope.key or node != own.node or units.shape[1] != own.units.size:
            return False
        return bool((np.sort(units, axis=1) == np.sort(own.units.reshape(1, -1), axis=1)).all())

    def open(self) -> np.ndarray:
        """Which rows are open in which boxes (K, C)."""
        return np.asarray(self._boxes.open & ~(self._bound > 0))

    def close(self, entries: np.ndarray, axis: np.ndarray) -> Settled:
        """Halve what is left of the boxes that are open for a row, `entries` (G,), each along an axis (G,).

        First all lower halves, then all upper ones. The upper half of a box between whose ends along the axis no number
        is left is the box itself. Raises ValueError where a box is left out.
        """
        boxes, left = self._boxes, self.open()
        if not np.array_equal(entries, np.flatnonzero(left.any(axis=1))):
            raise ValueError("all boxes that are open are halved")
        reached = np.where(boxes.open & ~left, self._bound, np.inf).min(axis=0, initial=np.inf)
        if not len(entries):
            return Settled(boxes.key, None, reached, self._shown, seal=SEAL)
        lower, upper = self.left(entries)
        if (lower > boxes.lower[entries]).any() or (upper < boxes.upper[entries]).any():
            reached = np.minimum(reached, np.where(left.any(axis=0), CLEARANCE, np.inf))
        index, twice = np.arange(len(entries)), np.tile(entries, 2)
        middle = 0.5 * lower[index, axis] + 0.5 * upper[index, axis]
        possible = (middle > lower[index, axis]) & (middle < upper[index, axis])
        both = np.tile(lower, (2, 1)), np.tile(upper, (2, 1))
        both[1][index, axis] = np.where(possible, middle, upper[index, axis])
        both[0][len(index) + index, axis] = np.where(possible, middle, lower[index, axis])
        rest = Boxes(*both, left[twice], self._bound[twice], boxes.claims, boxes.root, seal=SEAL)
        halving = Halving(entries, axis, np.where(possible, middle, np.nan))
        return Settled(boxes.key, rest, reached, self._shown, halving, seal=SEAL)

    def left(self, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is left of some boxes (G,): lower, upper (G, n)."""
        whole = (self._whole & self.open())[entries].any(axis=1)[:, None]
        lower = np.where(whole, self._boxes.lower[entries], self._lower[entries])
        return lower, np.where(whole, self._boxes.upper[entries], self._upper[entries])

    def inherited(self, root: Scope, entries: np.ndarray) -> Inherited:
        """What the halves of some boxes (G,) inherit."""
        twice, boxes, sides = np.tile(entries, 2), self._boxes, (self._bounds.lower, self._bounds.upper)
        arrays = {
            node: tuple(side[node].reshape(len(side[node]), -1)[twice] for side in sides)
            for node in self._bounds.network.preactivations
        }
        return Inherited(boxes.lower[twice], boxes.upper[twice], arrays, root.key, seal=SEAL)
