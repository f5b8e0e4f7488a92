"""The closest violating input in one linear piece of a network: what turns a rough counterexample into a sharp one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mipverify.attack.radius import RadiusProgram
from mipverify.network import Affine, Network, Relu
from mipverify.network.reverse import through_terms, walk_back
from mipverify.specification.perturbation import Perturbation

ROUNDS = 30
FLOAT32 = 2e-7  # relative, more than what rounding a coordinate changes


@dataclass(frozen=True, eq=False)
class Piece:
    """The linear piece around a point x (n,): `matrix @ (x' - x) + value >= 0` (m, n), (m,) holds for x' in it.

    The last row is the negative of the margin.
    """

    point: np.ndarray
    matrix: np.ndarray
    value: np.ndarray
    units: tuple[tuple[int, int], ...]


def piece_around(
    margins: Network,
    point: np.ndarray,
    condition: int,
    units: Mapping[int, np.ndarray],
    flipped: frozenset[tuple[int, int]] = frozenset(),
) -> Piece:
    """The piece in which a point lies, and where one output of a margin network is not positive.

    units: by pre-activation node, the flat units whose sign may change at all. flipped: units (node, unit) whose sign
    is to be the other one.
    """
    values = margins.values(point.reshape(1, *margins.input_shape))
    active = {}
    for node in margins.relus:
        source = margins.relu_source(node)
        active[source] = (values[source] > 0).reshape(1, -1).copy()
    for source, unit in flipped:
        active[source][0, unit] ^= True
    rows, value, named = [], [], []
    for source, chosen in units.items():
        if not len(chosen):
            continue
        sign = np.where(active[source][0, chosen], 1.0, -1.0)
        matrix, constant = _linear(margins, source, chosen, active)
        rows.append(sign[:, None] * matrix)
        value.append(sign * (matrix @ point + constant))
        named += [(source, int(unit)) for unit in chosen]
    matrix, constant = _linear(margins, margins.output, np.array([condition]), active)
    rows.append(-matrix)
    value.append(-(matrix @ point + constant))
    return Piece(point, np.concatenate(rows), np.concatenate(value), tuple(named))


def _linear(
    network: Network, node: int, units: np.ndarray, active: Mapping[int, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Entries `units` of a node as affine functions of the input, (U, n) and (U,), with the ReLUs' phases given."""
    start = np.zeros((len(units), int(np.prod(network.nodes[node].shape))))
    start[np.arange(len(units)), units] = 1
    constant = np.zeros(len(units))

    def affine(_: int, current: Affine, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        nonlocal constant
        if current.bias is not None:
            bias = np.broadcast_to(np.asarray(current.bias, np.float64), current.shape).reshape(-1)
            constant = constant + rows.reshape(len(units), -1) @ bias
        return through_terms(network, current, rows)

    def relu(_: int, current: Relu, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        yield current.source, rows * active[current.source].reshape(1, *network.nodes[current.source].shape)

    reached = walk_back(network, {node: start.reshape(len(units), *network.nodes[node].shape)}, relu, affine)
    if reached is None:
        reached = np.zeros((len(units), network.input_size))
    return np.asarray(reached, np.float64).reshape(len(units), -1), constant


def closest_in(
    piece: Piece, perturbation: Perturbation, slack: float, limit: float = np.inf
) -> tuple[np.ndarray, np.ndarray] | None:
    """The closest input (n,) of a piece whose margin is at most -slack, and the rows (A,) that hold it back.

    None where there is none, or none up to a distance `limit`. Rows enter the problem as they turn out to be violated:
    few of them matter.
    """
    center, scale = perturbation.center, perturbation.scale
    matrix = piece.matrix * scale
    value = piece.value + piece.matrix @ (center - piece.point)
    value[-1] -= slack
    matrix, value = _with_constraints(matrix, value, perturbation)
    size = np.linalg.norm(matrix, axis=1) + 1e-12
    matrix, value = matrix / size[:, None], value / size
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = ((side - center) / scale for side in perturbation.limits)
    low, high = np.where(scale > 0, low, 0.0), np.where(scale > 0, high, 0.0)
    program: RadiusProgram | _Program = (
        RadiusProgram(low, high) if perturbation.norm == "linf" else _Program(perturbation.norm, low, high)
    )
    used = np.zeros(len(matrix), bool)
    more = np.arange(len(piece.units), len(matrix))  # the margin, and the constraints
    for _ in range(ROUNDS):
        used[more] = True
        program.add(matrix[more], value[more])
        step = program.solve(limit)
        if step is None:
            return None
        rows = matrix @ step + value
        missing = np.flatnonzero((rows < -1e-9) & ~used)
        if not len(missing):
            tight = np.flatnonzero(rows < 1e-8)
            return center + scale * step, tight[tight < len(piece.units)]
        more = missing[np.argsort(rows[missing])[:50]]
    return None


def _with_constraints(
    matrix: np.ndarray, value: np.ndarray, perturbation: Perturbation
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the piece and of the perturbation's inequalities, in scaled steps from the center."""
    if perturbation.matrix is None or perturbation.offset is None:
        return matrix, value
    room = perturbation.offset - perturbation.matrix @ perturbation.center
    # Rounded to float32, a point at a limit would be beyond it.
    room = room - FLOAT32 * (np.abs(perturbation.matrix) @ (np.abs(perturbation.center) + perturbation.scale))
    return np.concatenate([matrix, -perturbation.matrix * perturbation.scale]), np.concatenate([value, room])


class _Program:
    """The step in another norm, solved anew when rows are added; as `RadiusProgram`."""

    def __init__(self, norm: str, low: np.ndarray, high: np.ndarray):
        self.norm, self.low, self.high = norm, low, high
        self.matrix, self.value = np.zeros((0, len(low))), np.zeros(0)

    def add(self, matrix: np.ndarray, value: np.ndarray) -> None:
        self.matrix, self.value = np.concatenate([self.matrix, matrix]), np.concatenate([self.value, value])

    def solve(self, limit: float) -> np.ndarray | None:
        least = _least_sum if self.norm == "l1" else _least_square
        step = least(self.matrix, self.value, self.low, self.high)
        if step is None:
            return None
        far = np.abs(step).sum() if self.norm == "l1" else np.linalg.norm(step)
        return step if far <= limit else None


def _least_sum(matrix: np.ndarray, value: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """The step w from low to high with matrix @ w + value >= 0 and least l_1 norm: a linear program in the steps up and
    down; None if there is none."""
    from scipy.optimize import linprog

    limits = np.column_stack([np.zeros(2 * len(low)), np.concatenate([high, -low])])
    solved = linprog(
        np.ones(2 * len(low)), A_ub=np.column_stack([-matrix, matrix]), b_ub=value, bounds=limits, method="highs"
    )
    return np.asarray(solved.x[: len(low)] - solved.x[len(low) :]) if solved.status == 0 else None


def _least_square(matrix: np.ndarray, value: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray | None:
    """The same in the l_2 norm, as the least-distance problem of Lawson and Hanson [Solving Least Squares Problems,
    1974, chapter 23], to which limits are added as they turn out to matter."""
    from scipy.optimize import nnls

    sides: list[tuple[int, float]] = []
    for _ in range(ROUNDS):
        limits = np.zeros((len(sides), len(low)))
        for row, (index, sign) in enumerate(sides):
            limits[row, index] = sign
        ends = [low[index] if sign > 0 else -high[index] for index, sign in sides]
        system = np.vstack([np.concatenate([matrix, limits]).T, np.concatenate([-value, ends])])
        wanted = np.zeros(len(system))
        wanted[-1] = 1
        try:
            weights, _ = nnls(system, wanted, maxiter=20 * system.shape[1])
        except RuntimeError:
            return None
        residual = system @ weights - wanted
        if residual[-1] > -1e-12:
            return None
        step = -residual[:-1] / residual[-1]
        over = [(int(i), 1.0) for i in np.flatnonzero(step < low - 1e-9)]
        over += [(int(i), -1.0) for i in np.flatnonzero(step > high + 1e-9)]
        if not over:
            return np.clip(step, low, high)
        sides += [side for side in over if side not in sides]
    return None
