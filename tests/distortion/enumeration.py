"""The exact closest violation of a tiny network by enumeration of its linear pieces: a program solved in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import highspy
import numpy as np
from scipy.optimize import minimize

from mipverify.network import Affine, Network, Relu

Affines = tuple[np.ndarray, np.ndarray]  # matrix (size, n) and constant (size,)


@dataclass(frozen=True)
class Problem:
    """All x between `low` and `high` with `matrix @ x <= offset`, and how far from `center` they are, by feature."""

    center: np.ndarray
    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray
    matrix: np.ndarray
    offset: np.ndarray

    @classmethod
    def around(
        cls,
        center: np.ndarray,
        *,
        scale: np.ndarray | None = None,
        domain: tuple[float, float] = (0, 1),
        constraints: Sequence[tuple[np.ndarray, float]] = (),
    ) -> Problem:
        flat = np.asarray(center, np.float64).reshape(-1)
        sizes = np.ones(len(flat)) if scale is None else np.asarray(scale, np.float64)
        low = np.where(sizes > 0, domain[0], flat)
        high = np.where(sizes > 0, domain[1], flat)
        matrix = np.array([row for row, _ in constraints]).reshape(-1, len(flat))
        return cls(flat, sizes, low, high, matrix, np.array([limit for _, limit in constraints]))


@dataclass(frozen=True)
class Piece:
    """A region `matrix @ x <= offset` of the domain where the outputs are `output[0] @ x + output[1]`."""

    matrix: np.ndarray
    offset: np.ndarray
    output: Affines


def pieces(network: Network, problem: Problem) -> list[Piece]:
    """Every linear piece of the network that meets the problem's inputs."""
    start: list[Affines] = [(np.eye(network.input_size), np.zeros(network.input_size))]
    weights = {
        index: [term.operator.to_sparse().toarray() for term in node.terms]
        for index, node in enumerate(network.nodes)
        if isinstance(node, Affine)
    }
    return list(_grow(network, weights, problem, start, problem.matrix, problem.offset))


def _grow(
    network: Network,
    weights: dict[int, list[np.ndarray]],
    problem: Problem,
    values: list[Affines],
    matrix: np.ndarray,
    offset: np.ndarray,
) -> Iterator[Piece]:
    for index in range(len(values), len(network.nodes)):
        node = network.nodes[index]
        if isinstance(node, Relu):
            for phases, rows, limits in _phases(problem, *values[node.source], matrix, offset):
                before, constant = values[node.source]
                after = (before * phases[:, None], constant * phases)
                yield from _grow(network, weights, problem, [*values, after], rows, limits)
            return
        assert isinstance(node, Affine)
        size = int(np.prod(node.shape))
        total = np.zeros((size, network.input_size))
        constant = np.zeros(size) if node.bias is None else np.broadcast_to(node.bias, node.shape).reshape(-1) * 1.0
        for term, weight in zip(node.terms, weights[index], strict=True):
            total = total + weight @ values[term.source][0]
            constant = constant + weight @ values[term.source][1]
        values = [*values, (total, constant)]
    yield Piece(matrix, offset, values[network.output])


def _phases(
    problem: Problem, rows: np.ndarray, constant: np.ndarray, matrix: np.ndarray, offset: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The phases (units,) that occur together, with the region of each."""
    found = [(np.zeros(0), matrix, offset)]
    for row, value in zip(rows, constant, strict=True):
        low = np.minimum(row * problem.low, row * problem.high).sum() + value
        high = np.maximum(row * problem.low, row * problem.high).sum() + value
        after = []
        for phases, region, limits in found:
            if low >= 0 or high <= 0:
                after.append((np.append(phases, float(low >= 0)), region, limits))
                continue
            for phase, sign in ((1.0, -1.0), (0.0, 1.0)):
                grown, ends = np.vstack([region, sign * row]), np.append(limits, -sign * value)
                if _solve(np.zeros(len(row)), grown, ends, problem.low, problem.high) is not None:
                    after.append((np.append(phases, phase), grown, ends))
        found = after
    yield from found


def least(
    costs: np.ndarray, matrix: np.ndarray, offset: np.ndarray, low: np.ndarray, high: np.ndarray
) -> list[tuple[float, np.ndarray] | None]:
    """For each row of `costs`, its minimum over `matrix @ x <= offset`, `low <= x <= high`, and a place; None: empty.

    One program takes every cost in turn: most of the time of a program this small goes into setting it up.
    """
    rows, columns = matrix.shape
    engine = highspy.Highs()
    engine.setOptionValue("output_flag", False)
    engine.passModel(
        columns,
        rows,
        rows * columns,
        int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize),
        0.0,
        np.asarray(costs[0], np.float64),
        np.asarray(low, np.float64),
        np.asarray(high, np.float64),
        np.full(rows, -np.inf),
        np.asarray(offset, np.float64),
        np.arange(rows, dtype=np.int32) * columns,
        np.tile(np.arange(columns, dtype=np.int32), rows),
        matrix.reshape(-1).astype(np.float64),
        np.zeros(columns, np.int32),
    )
    found: list[tuple[float, np.ndarray] | None] = []
    for cost in costs:
        engine.changeColsCost(columns, np.arange(columns, dtype=np.int32), np.asarray(cost, np.float64))
        engine.run()
        status = engine.getModelStatus()
        if status == highspy.HighsModelStatus.kInfeasible:
            return [None] * len(costs)
        assert status == highspy.HighsModelStatus.kOptimal, status
        found.append((engine.getObjectiveValue(), np.array(engine.getSolution().col_value)))
    return found


def _solve(
    cost: np.ndarray, matrix: np.ndarray, offset: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray | None:
    (found,) = least(cost[None], matrix, offset, low, high)
    return None if found is None else found[1]


def closest(
    found: Sequence[Piece],
    problem: Problem,
    norm: str,
    label: int,
    targets: Sequence[int] | None = None,
    margin: float = 0.0,
) -> float:
    """The least distance of an input at which a target reaches the label's score plus `margin`; infinity if none."""
    best = np.inf
    for piece in found:
        scores, constant = piece.output
        for target in range(len(constant)) if targets is None else targets:
            if target == label:
                continue
            matrix = np.vstack([piece.matrix, scores[label] - scores[target]])
            offset = np.append(piece.offset, constant[target] - constant[label] - margin)
            best = min(best, _nearest(problem, norm, matrix, offset, best))
    return best


def _nearest(problem: Problem, norm: str, matrix: np.ndarray, offset: np.ndarray, best: float) -> float:
    """The distance of a polyhedron."""
    free = problem.scale > 0
    scale = problem.scale[free]
    rows, room = matrix[:, free] * scale, offset - matrix @ problem.center  # in scaled steps from the center
    low, high = (problem.low - problem.center)[free] / scale, (problem.high - problem.center)[free] / scale
    count = int(free.sum())
    if norm == "l1":
        cost, both = np.ones(2 * count), np.hstack([rows, -rows])
        step = _solve(cost, both, room, np.zeros(2 * count), np.append(high, -low))
        return np.inf if step is None else float(step.sum())
    ends = np.vstack([np.hstack([sign * np.eye(count), -np.ones((count, 1))]) for sign in (1, -1)])
    wide = np.vstack([np.hstack([rows, np.zeros((len(rows), 1))]), ends])
    cost = np.append(np.zeros(count), 1.0)
    start = _solve(cost, wide, np.append(room, np.zeros(2 * count)), np.append(low, 0), np.append(high, np.inf))
    if start is None or start[-1] >= best:
        return np.inf
    if norm == "linf":
        return float(start[-1])
    solved = minimize(
        lambda step: step @ step,
        start[:-1],
        jac=lambda step: 2 * step,
        bounds=np.column_stack([low, high]),
        constraints={"type": "ineq", "fun": lambda step: room - rows @ step, "jac": lambda step: -rows},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert solved.success or solved.status == 8, solved  # 8: no better along the line, at full precision
    assert (rows @ solved.x <= room + 1e-7).all()
    return float(np.sqrt(solved.fun))
