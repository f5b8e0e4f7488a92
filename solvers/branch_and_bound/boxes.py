"""Branch and bound on the input box, for few inputs: CROWN batched over boxes, which are halved where it matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mipverify.presolve import crown
from mipverify.solvers.branch_and_bound.box_branching import influence, reach
from mipverify.solvers.branch_and_bound.conjunction import settle_condition

from mipverify.parallel import ALONE, Hands, dealt
from mipverify.proof.bounds import Bounds
from mipverify.proof.boxes import BoxCases, Boxes, Inherited, Settled, Settlement, part_bounds
from mipverify.proof.facts import Claim, RowBounds
from mipverify.proof.parts import never

LEAST_SHARE = 64  # boxes that are worth the way to another process
MAX_KNOWN_BYTES = 1 << 29  # of inherited bounds; beyond it children start from interval arithmetic again


@dataclass(frozen=True)
class BoxOutcome:
    """closed: every box is. bounds: proven of each claim over the whole box. boxes: bounded from the start. witness:
    what `try_points` returned, if it accepted a point. reason: why the search is open still."""

    closed: bool
    bounds: Sequence[RowBounds]
    boxes: int
    witness: object | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Block:
    """Open boxes, and what their bounds start from, if that is kept."""

    boxes: Boxes
    inherited: Inherited | None


def search_boxes(
    bounds: Bounds,
    claims: Sequence[Claim],
    *,
    try_points: Callable[[np.ndarray], object | None] = lambda points: None,
    stop: Callable[[], bool] = never,
    batch: int = 512,
    hands: Hands = ALONE,
    progress: Callable[[BoxCases, int, int, float], None] | None = None,
) -> BoxOutcome:
    """Prove that rows are positive on an input box (bounds of batch 1), or find where one is not.

    claims: of one row each; one of several units (1, m) is about the largest of them. hands: who bounds the boxes of a
    batch.
    """
    cases = BoxCases(bounds, claims)
    stack = [_Block(cases.root, None)]
    counted, reason = 0, ""
    while stack and not reason:
        if stop():
            reason = "time"
            break
        block = _last(cases, stack, batch)
        counted += len(block.boxes)
        keep = sum(b.inherited.bytes for b in stack if b.inherited is not None) < MAX_KNOWN_BYTES
        blocks = _deal(cases, block, dealt(np.arange(len(block.boxes)), hands, LEAST_SHARE))
        work = hands.map(_process, (bounds, claims), [(own, keep) for own in blocks], stop)
        for own, done in zip(blocks, work, strict=True):
            if done is None:
                stack.append(own)
                continue
            settled, inherited, points = done
            cases.settle(settled)
            if settled.rest is None:
                continue
            found = try_points(points)
            if found is not None:
                return BoxOutcome(False, cases.proven(), counted, witness=found)
            stack.append(_Block(settled.rest, inherited))
            if _some_cannot_be_halved(settled.rest):
                reason = "a box of floating-point width could not be decided"
        if progress is not None and stack:
            left = sum(len(b.boxes) for b in stack)
            progress(cases, counted, left, min(float(b.boxes.bound[b.boxes.open].min()) for b in stack))
    return BoxOutcome(not stack, cases.proven(), counted, reason=reason if stack else "")


def _last(cases: BoxCases, stack: list[_Block], size: int) -> _Block:
    """Take the `size` newest boxes, or all there are."""
    taken: list[_Block] = []
    count = 0
    while stack and count < size:
        block = stack.pop()
        if count + len(block.boxes) > size:
            cut = len(block.boxes) - (size - count)
            rest, block = _deal(cases, block, [np.arange(cut), np.arange(cut, len(block.boxes))])
            stack.append(rest)
        taken.append(block)
        count += len(block.boxes)
    if len(taken) == 1:
        return taken[0]
    known = [block.inherited for block in taken if block.inherited is not None]
    inherited = Inherited.join(known) if len(known) == len(taken) else None
    return _Block(cases.join([block.boxes for block in taken]), inherited)


def _deal(cases: BoxCases, block: _Block, parts: Sequence[np.ndarray]) -> list[_Block]:
    if len(parts) == 1:
        return [block]
    known = block.inherited
    return [
        _Block(boxes, None if known is None else known.take(part))
        for boxes, part in zip(cases.deal(block.boxes, parts), parts, strict=True)
    ]


def _process(
    work: tuple[Bounds, Sequence[Claim]], item: tuple[_Block, bool], stop: Callable[[], bool]
) -> tuple[Settled, Inherited | None, np.ndarray]:
    """Bound the boxes of a block: what becomes of them, what that inherits, and points (R, n) to try."""
    (root, claims), (block, keep) = work, item
    boxes = block.boxes
    bounds = crown(part_bounds(root, boxes, block.inherited), stop)
    keep = keep and bounds.derivation is None  # what is inherited has none
    reached = reach(bounds, boxes.lower, boxes.upper)
    settlement = Settlement(boxes, bounds)
    weight, points = np.zeros(boxes.lower.shape), [boxes.lower[:0]]
    for position, claim in enumerate(claims):
        at = np.flatnonzero(boxes.open[:, position])
        if not len(at):
            continue
        found = settle_condition(settlement, position, claim, bounds, at)
        if len(found.at):
            weight[found.at] = np.maximum(weight[found.at], influence(bounds, found.row, found.at, reached))
            points.append(found.minimizer)
    going = np.flatnonzero(settlement.open().any(axis=1))
    points.append(0.5 * (boxes.lower + boxes.upper)[going])
    lower, upper = settlement.left(going)
    share = weight[going] / np.maximum((boxes.upper - boxes.lower)[going], 1e-300)
    settled = settlement.close(going, _axes(lower, upper, share))
    inherited = settlement.inherited(root.scope, going) if keep and len(going) else None
    return settled, inherited, np.concatenate(points)


def _axes(lower: np.ndarray, upper: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Where weight times width is largest (G,), among the axes between whose ends a number is left."""
    width, middle = upper - lower, 0.5 * lower + 0.5 * upper
    possible = (middle > lower) & (middle < upper)
    return np.asarray(np.argmax(np.where(possible, weight * width + 1e-12 * width, -1.0), axis=1))


def _some_cannot_be_halved(children: Boxes) -> bool:
    half = len(children) // 2
    same = (children.lower[:half] == children.lower[half:]) & (children.upper[:half] == children.upper[half:])
    return bool(same.all(axis=1).any())
