"""Branch and bound on the input box, for few inputs: CROWN batched over boxes, which are halved where it matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mipverify.presolve import crown
from mipverify.solvers.branch_and_bound.branching.influence import RelaxedBoxes
from mipverify.solvers.branch_and_bound.branching.rule import BOX, BranchingRule, rule
from mipverify.solvers.branch_and_bound.conjunction import settle_condition
from mipverify.solvers.branch_and_bound.loop import Batch, explore

from mipverify.parallel import SERIAL, Executor, partition
from mipverify.proof.bounds import Bounds
from mipverify.proof.boxes import BoxCases, Boxes, Inherited, Settled, Settlement, part_bounds
from mipverify.proof.facts import Claim, RowBounds
from mipverify.proof.parts import never

BATCH = 512  # boxes that are bounded together: their arrays are small
LEAST_SHARE = 64  # boxes that are worth the way to another process
MOST_INHERITED = 1 << 29  # bytes of inherited bounds; beyond it children start from interval arithmetic again
UNDECIDABLE = "a box of floating-point width could not be decided"


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


@dataclass(frozen=True, eq=False)
class _Work:
    """What all blocks need: bounds of the whole box, what the rows stand for, and where boxes are halved."""

    root: Bounds
    claims: Sequence[Claim]
    branching: BranchingRule[RelaxedBoxes, np.intp]


def _process(
    work: _Work, item: tuple[_Block, bool], stop: Callable[[], bool]
) -> tuple[Settled, Inherited | None, np.ndarray]:
    """Bound the boxes of a block: what becomes of them, what that inherits, and points (R, n) to try."""
    (block, keep), root = item, work.root
    boxes = block.boxes
    bounds = crown(part_bounds(root, boxes, block.inherited), stop)
    keep = keep and bounds.derivation is None  # what is inherited has none
    settlement = Settlement(boxes, bounds)
    found = []
    for position, claim in enumerate(work.claims):
        at = np.flatnonzero(boxes.open[:, position])
        if len(at):
            found.append(settle_condition(settlement, position, claim, bounds, at))
    found = [own for own in found if len(own.at)]
    going = np.flatnonzero(settlement.open().any(axis=1))
    points = [boxes.lower[:0], *(own.minimizer for own in found), 0.5 * (boxes.lower + boxes.upper)[going]]
    left = settlement.left(going)
    relaxed = RelaxedBoxes(bounds, boxes.lower, boxes.upper, found, going, left)
    settled = settlement.close(going, np.asarray(work.branching.choose(relaxed)))
    inherited = settlement.inherited(root.scope, going) if keep and len(going) else None
    return settled, inherited, np.concatenate(points)


def search_boxes(
    bounds: Bounds,
    claims: Sequence[Claim],
    *,
    try_points: Callable[[np.ndarray], object | None] = lambda points: None,
    stop: Callable[[], bool] = never,
    batch: int = BATCH,
    pool: Executor = SERIAL,
    progress: Callable[[BoxCases, int, int, float], None] | None = None,
    most_inherited: int = MOST_INHERITED,
    branching: str = "influence",
) -> BoxOutcome:
    """Prove that rows are positive on an input box (bounds of batch 1), or find where one is not.

    claims: of one row each; one of several units (1, m) is about the largest of them. pool: who bounds the boxes of a
    batch. most_inherited: bytes of bounds that open boxes keep for their halves. branching: the name of a rule.
    """
    tree = _BoxTree(_Work(bounds, claims, rule(branching, BOX)), batch, most_inherited, progress)
    ending = explore(tree, try_points, pool, stop)
    closed = ending.witness is None and not tree.stack
    reason = UNDECIDABLE if tree.undecidable and tree.stack else ending.reason
    return BoxOutcome(closed, tree.cases.proven(), tree.counted, ending.witness, reason)


class _BoxTree:
    """Boxes for the common loop, the newest first: few are open at a time, and children start from what is known."""

    def __init__(
        self,
        work: _Work,
        batch: int,
        most_inherited: int,
        progress: Callable[[BoxCases, int, int, float], None] | None,
    ):
        self.work, self.batch, self.most_inherited, self.progress = work, batch, most_inherited, progress
        self.cases = BoxCases(work.root, work.claims)
        self.stack = [_Block(self.cases.root, None)]
        self.counted, self.undecidable = 0, False

    def open(self) -> bool:
        """Whether any box is."""
        return bool(self.stack)

    def obstacle(self) -> str:
        """A box that cannot be halved any more."""
        return UNDECIDABLE if self.undecidable else ""

    def take(self, pool: Executor) -> Batch:
        """The newest boxes, partitioned."""
        block = _last(self.cases, self.stack, self.batch)
        self.counted += len(block.boxes)
        keep = sum(b.inherited.bytes for b in self.stack if b.inherited is not None) < self.most_inherited
        blocks = _deal(self.cases, block, partition(np.arange(len(block.boxes)), pool, LEAST_SHARE))
        return Batch(_process, self.work, [(own, keep) for own in blocks])

    def put_back(self, part: tuple[_Block, bool]) -> None:
        """A block that was not bounded."""
        self.stack.append(part[0])

    def absorb(
        self, part: tuple[_Block, bool], done: tuple[Settled, Inherited | None, np.ndarray]
    ) -> np.ndarray | None:
        """Settle boxes, keep the halves of those that are open; their minimizers and middles."""
        settled, inherited, points = done
        self.cases.settle(settled)
        if settled.rest is None:
            return None
        self.stack.append(_Block(settled.rest, inherited))
        self.undecidable = self.undecidable or _some_cannot_be_halved(settled.rest)
        return points

    def rest(self, answered: bool) -> None:
        """Tell how far it is."""
        if self.progress is not None and self.stack:
            left = sum(len(block.boxes) for block in self.stack)
            least = min(float(block.boxes.bound[block.boxes.open].min()) for block in self.stack)
            self.progress(self.cases, self.counted, left, least)


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


def _some_cannot_be_halved(children: Boxes) -> bool:
    half = len(children) // 2
    same = (children.lower[:half] == children.lower[half:]) & (children.upper[:half] == children.upper[half:])
    return bool(same.all(axis=1).any())
