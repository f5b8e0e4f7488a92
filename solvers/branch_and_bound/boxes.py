"""Branch and bound on the input box, for few inputs: CROWN batched over boxes, which are halved where it matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mipverify.presolve import Relaxed, crown
from mipverify.solvers.branch_and_bound.box_branching import influence, reach
from mipverify.solvers.branch_and_bound.conjunction import CLEARANCE, bound_condition
from mipverify.solvers.branch_and_bound.search import Outcome

from mipverify.network import Network
from mipverify.parallel import ALONE, Hands, dealt
from mipverify.specification.regions import Region

LEAST_SHARE = 64  # boxes that are worth the way to another process
MAX_KNOWN_BYTES = 1 << 29  # of inherited bounds; beyond it children start from interval arithmetic again


@dataclass(eq=False)
class _Block:
    """Open boxes that were made together: lower, upper (K, n); open (K, conditions); known bounds by node or empty."""

    lower: np.ndarray
    upper: np.ndarray
    open: np.ndarray
    bound: np.ndarray
    known: dict[int, tuple[np.ndarray, np.ndarray]]

    def take(self, part: slice | np.ndarray) -> _Block:
        known = {node: (low[part], high[part]) for node, (low, high) in self.known.items()}
        return _Block(self.lower[part], self.upper[part], self.open[part], self.bound[part], known)

    def bytes(self) -> int:
        return sum(low.nbytes + high.nbytes for low, high in self.known.values())


def search_boxes(
    network: Network,
    lower: np.ndarray,
    upper: np.ndarray,
    conditions: Sequence[int],
    *,
    parts: Sequence[tuple[int, list[int]]] | None = None,
    region: Region | None = None,
    try_points: Callable[[np.ndarray], object | None] = lambda points: None,
    stop: Callable[[], bool] = lambda: False,
    batch: int = 512,
    hands: Hands = ALONE,
    progress: Callable[[int, int, float], None] | None = None,
) -> Outcome:
    """Prove that the outputs `conditions` of a margin network are positive on a box (n,), or find where one is not.

    parts: for each condition the (node, its units) whose maximum it is, by default the output itself.
    hands: who bounds the boxes of a batch.
    """
    conditions = list(conditions)
    parts = [(network.output, [c]) for c in conditions] if parts is None else parts
    width = len(conditions)
    stack = [_Block(lower[None], upper[None], np.ones((1, width), bool), np.full((1, width), -np.inf), {})]
    proven = np.full(width, np.inf)
    counted, reason = 0, ""
    work = network, parts, region
    while stack and not reason:
        if stop():
            reason = "time"
            break
        block = _last(stack, batch)
        counted += len(block.lower)
        keep = sum(b.bytes() for b in stack) < MAX_KNOWN_BYTES
        blocks = [block.take(part) for part in dealt(np.arange(len(block.lower)), hands, LEAST_SHARE)]
        for own, done in zip(blocks, hands.map(_process, work, [(b, keep) for b in blocks], stop), strict=True):
            if done is None:
                stack.append(own)
                continue
            children, points, closed = done
            proven = np.minimum(proven, closed)
            if children is None:
                continue
            found = try_points(points)
            if found is not None:
                return Outcome(False, {}, counted, witness=found)
            stack.append(children)
            if _some_cannot_be_halved(children):
                reason = "a box of floating-point width could not be decided"
        if progress is not None and stack:
            progress(counted, sum(len(b.lower) for b in stack), min(float(b.bound.min()) for b in stack))
    for block in stack:
        proven = np.minimum(proven, np.where(block.open, block.bound, np.inf).min(axis=0))
    lowest = {c: float(v) for c, v in zip(conditions, proven, strict=True)}
    return Outcome(not stack, lowest, counted, reason=reason if stack else "")


def _last(stack: list[_Block], size: int) -> _Block:
    """Take the `size` newest boxes, or all there are."""
    taken, count = [], 0
    while stack and count < size:
        block = stack.pop()
        if count + len(block.lower) > size:
            cut = len(block.lower) - (size - count)
            stack.append(block.take(slice(0, cut)))
            block = block.take(slice(cut, None))
        taken.append(block)
        count += len(block.lower)
    nodes = set.intersection(*(set(block.known) for block in taken))
    return _Block(
        np.concatenate([b.lower for b in taken]),
        np.concatenate([b.upper for b in taken]),
        np.concatenate([b.open for b in taken]),
        np.concatenate([b.bound for b in taken]),
        {node: tuple(np.concatenate([b.known[node][side] for b in taken]) for side in (0, 1)) for node in nodes},  # type: ignore[misc]
    )


def _process(
    work: tuple[Network, Sequence[tuple[int, list[int]]], Region | None],
    item: tuple[_Block, bool],
    stop: Callable[[], bool],
) -> tuple[_Block | None, np.ndarray, np.ndarray]:
    """Bound the boxes of a block: the halves of those left open, points to try, and the bounds it closed with."""
    (network, parts, region), (block, keep) = work, item
    shape = (len(block.lower), *network.input_shape)
    relaxed = Relaxed(crown(network, block.lower.reshape(shape), block.upper.reshape(shape), block.known, region, stop))
    reached = reach(relaxed, block.lower, block.upper)
    bound = np.where(block.open, block.bound, np.inf)
    weight, points = np.zeros(block.lower.shape), [block.lower[:0]]
    # What is left of a box: the hull of what its open conditions leave of it.
    lower, upper = np.full_like(block.lower, np.inf), np.full_like(block.upper, -np.inf)
    for position, (node, units) in enumerate(parts):
        at = np.flatnonzero(block.open[:, position])
        if not len(at):
            continue
        found = bound_condition(relaxed, node, units, at)
        bound[at, position] = np.maximum(found.lower, bound[at, position])
        here = at[found.open]
        if not len(here):
            continue
        lower[here] = np.minimum(lower[here], found.box_lower)
        upper[here] = np.maximum(upper[here], found.box_upper)
        weight[here] = np.maximum(weight[here], influence(relaxed, found.row, here, reached))
        points.append(found.minimizer)
    left = block.open & ~(bound > 0)
    closed = np.where(block.open & ~left, bound, np.inf).min(axis=0)
    going = np.flatnonzero(left.any(axis=1))
    points.append(0.5 * (block.lower + block.upper)[going])
    if not len(going):
        return None, block.lower[:0], closed
    if (lower[going] > block.lower[going]).any() or (upper[going] < block.upper[going]).any():
        closed = np.minimum(closed, np.where(left.any(axis=0), CLEARANCE, np.inf))
    known = {n: (low[going], high[going]) for n, (low, high) in relaxed.bounds.known().items()} if keep else {}
    rest = _Block(lower[going], upper[going], left[going], bound[going], known)
    return (
        _halves(rest, weight[going] / np.maximum((block.upper - block.lower)[going], 1e-300)),
        np.concatenate(points),
        closed,
    )


def _some_cannot_be_halved(children: _Block) -> bool:
    half = len(children.lower) // 2
    return bool((children.lower[:half] == children.lower[half:]).all(axis=1).any())


def _halves(block: _Block, weight: np.ndarray) -> _Block:
    """Every box cut in two where weight times width is largest; first all lower halves, then all upper ones.

    The upper half of a box between whose ends no number is left, in any coordinate, is the box itself.
    """
    width = block.upper - block.lower
    middle = 0.5 * block.lower + 0.5 * block.upper
    possible = (middle > block.lower) & (middle < block.upper)
    axis = np.argmax(np.where(possible, weight * width + 1e-12 * width, -1.0), axis=1)
    index = np.arange(len(axis))
    cut = np.where(possible[index, axis], middle[index, axis], block.lower[index, axis])
    both = block.take(np.concatenate([index, index]))
    both.upper[index, axis] = np.where(possible[index, axis], cut, block.upper[index, axis])
    both.lower[len(axis) + index, axis] = cut
    return both
