"""Branch and bound on the input box, for few inputs: CROWN batched over boxes, which are halved where it matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from mipverify.presolve import Relaxed, crown, minimum_over_box, pass_back, row_chunks, unit_rows
from mipverify.solvers.branch_and_bound.search import Outcome

from mipverify.network import Network

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


@dataclass(frozen=True)
class _Row:
    """Entry `unit` of `node`, whose lower bound is one for the condition at position `condition`."""

    condition: int
    node: int
    unit: int


def search_boxes(
    network: Network,
    lower: np.ndarray,
    upper: np.ndarray,
    conditions: Sequence[int],
    *,
    parts: Sequence[Sequence[tuple[int, int]]] | None = None,
    try_points: Callable[[np.ndarray], object | None] = lambda points: None,
    stop: Callable[[], bool] = lambda: False,
    batch: int = 256,
    progress: Callable[[int, int, float], None] | None = None,
) -> Outcome:
    """Prove that the outputs `conditions` of a margin network are positive on a box (n,), or find where one is not.

    parts: for each condition the (node, unit) entries whose maximum it is, if it is one: any of them may exclude it.
    """
    parts = [[] for _ in conditions] if parts is None else parts
    rows = [
        _Row(position, node, unit)
        for position, condition in enumerate(conditions)
        for node, unit in [(network.output, condition), *parts[position]]
    ]
    conditions = list(conditions)
    width = len(conditions)
    stack = [_Block(lower[None], upper[None], np.ones((1, width), bool), np.full((1, width), -np.inf), {})]
    proven = np.full(width, np.inf)
    counted, stored = 0, 0
    while stack:
        if stop():
            break
        block = stack.pop()
        stored -= block.bytes()
        if len(block.lower) > batch:
            rest = block.take(slice(0, len(block.lower) - batch))
            block = block.take(slice(len(block.lower) - batch, None))
            stack.append(rest)
            stored += rest.bytes()
        counted += len(block.lower)
        children, points, closed = _process(network, block, rows, keep=stored < MAX_KNOWN_BYTES)
        proven = np.minimum(proven, closed)
        if children is None:
            continue
        found = try_points(points)
        if found is not None:
            return Outcome(False, {}, counted, witness=found)
        stack.append(children)
        stored += children.bytes()
        if progress is not None:
            progress(counted, sum(len(b.lower) for b in stack), min(float(b.bound.min()) for b in stack))
    for block in stack:
        proven = np.minimum(proven, np.where(block.open, block.bound, np.inf).min(axis=0))
    lowest = {c: float(v) for c, v in zip(conditions, proven, strict=True)}
    return Outcome(not stack, lowest, counted, reason="time" if stack else "")


def _process(
    network: Network, block: _Block, rows: list[_Row], keep: bool
) -> tuple[_Block | None, np.ndarray, np.ndarray]:
    """Bound the boxes of a block: the halves of those left open, points to try, and the bounds it closed with."""
    count, shape = len(block.lower), (len(block.lower), *network.input_shape)
    bounds = crown(network, block.lower.reshape(shape), block.upper.reshape(shape), block.known)
    relaxed = Relaxed(bounds)
    bound = np.where(block.open, block.bound, np.inf)
    weight, points = np.zeros(block.lower.shape), []
    for row in rows:
        boxes = np.flatnonzero(block.open[:, row.condition] & ~(bound[:, row.condition] > 0))
        for part in row_chunks(network, row.node, len(boxes)):
            at = boxes[part]
            reached = pass_back(relaxed, unit_rows(network, row.node, np.full(len(at), row.unit), at, bounds.lower[0]))
            minimum = minimum_over_box(relaxed, reached, at)
            a = reached.coefficients.reshape(len(at), -1)
            better = minimum > bound[at, row.condition]
            bound[at, row.condition] = np.maximum(bound[at, row.condition], minimum)
            still = better & ~(minimum > 0)
            weight[at[still]] = np.maximum(weight[at[still]], np.abs(a[still]))
            points.append(np.where(a > 0, block.lower[at], block.upper[at])[still])
    left = block.open & ~(bound > 0)
    closed = np.where(block.open & ~left, bound, np.inf).min(axis=0)
    going = np.flatnonzero(left.any(axis=1))
    if not len(going):
        return None, block.lower[:0], closed
    lower, upper = block.lower[going], block.upper[going]
    axis = np.argmax(weight[going] * (upper - lower) + 1e-12 * (upper - lower), axis=1)
    index = np.arange(len(going))
    middle = 0.5 * lower[index, axis] + 0.5 * upper[index, axis]
    left_upper, right_lower = upper.copy(), lower.copy()
    left_upper[index, axis] = middle
    right_lower[index, axis] = middle
    twice = np.concatenate([going, going])
    known = {}
    if keep:
        known = {n: (low[twice], high[twice]) for n, (low, high) in bounds.known().items()}
    children = _Block(
        np.concatenate([lower, right_lower]), np.concatenate([left_upper, upper]), left[twice], bound[twice], known
    )
    centers = 0.5 * (lower + upper)
    return children, np.concatenate([*points, centers]), closed
