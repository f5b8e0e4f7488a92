"""The closest violating input in one activation region of a network: from a rough counterexample to a sharp one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mipverify.attack.least_step import step_program
from mipverify.formulation.lp import LpSession
from mipverify.network import Affine, Network, Relu
from mipverify.network.reverse import through_terms, walk_back
from mipverify.specification.perturbation import Perturbation

ROUNDS = 30
FLOAT32 = 2e-7  # relative, more than what rounding a coordinate changes


@dataclass(frozen=True, eq=False)
class ActivationRegion:
    """The activation region around a point x (n,): `matrix @ (x' - x) + value >= 0` (m, n), (m,) holds for x' in it.

    The last row is the negative of the margin.
    """

    point: np.ndarray
    matrix: np.ndarray
    value: np.ndarray
    units: tuple[tuple[int, int], ...]


def region_around(
    margins: Network,
    point: np.ndarray,
    condition: int,
    units: Mapping[int, np.ndarray],
    flipped: frozenset[tuple[int, int]] = frozenset(),
) -> ActivationRegion:
    """The region in which a point lies, and where one output of a margin network is not positive.

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
    return ActivationRegion(point, np.concatenate(rows), np.concatenate(value), tuple(named))


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
    region: ActivationRegion,
    perturbation: Perturbation,
    slack: float,
    open_session: Callable[[], LpSession],
    limit: float = np.inf,
) -> tuple[np.ndarray, np.ndarray] | None:
    """The closest input (n,) of a region whose margin is at most -slack, and the rows (A,) that hold it back.

    None where there is none, or none up to a distance `limit`. Rows enter the problem as they turn out to be violated:
    few of them matter.
    """
    center, scale = perturbation.center, perturbation.scale
    matrix = region.matrix * scale
    value = region.value + region.matrix @ (center - region.point)
    value[-1] -= slack
    matrix, value = _with_constraints(matrix, value, perturbation)
    size = np.linalg.norm(matrix, axis=1) + 1e-12
    matrix, value = matrix / size[:, None], value / size
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = ((side - center) / scale for side in perturbation.limits)
    low, high = np.where(scale > 0, low, 0.0), np.where(scale > 0, high, 0.0)
    program = step_program(perturbation.norm, low, high, open_session)
    used = np.zeros(len(matrix), bool)
    more = np.arange(len(region.units), len(matrix))  # the margin, and the constraints
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
            return center + scale * step, tight[tight < len(region.units)]
        more = missing[np.argsort(rows[missing])[:50]]
    return None


def _with_constraints(
    matrix: np.ndarray, value: np.ndarray, perturbation: Perturbation
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the region and of the perturbation's inequalities, in scaled steps from the center."""
    if perturbation.matrix is None or perturbation.offset is None:
        return matrix, value
    room = perturbation.offset - perturbation.matrix @ perturbation.center
    # Rounded to float32, a point at a limit would be beyond it.
    room = room - FLOAT32 * (np.abs(perturbation.matrix) @ (np.abs(perturbation.center) + perturbation.scale))
    return np.concatenate([matrix, -perturbation.matrix * perturbation.scale]), np.concatenate([value, room])
