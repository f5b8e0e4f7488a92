"""Linear programs over a reduced network: the triangle relaxation, with bounds of pre-activations as of columns.

The multipliers of such a program are evidence for backward bound propagation: those of `y >= z` choose lower slopes,
the reduced costs of z are multipliers of its bounds, and those of the upper line are what the pass back has anyway. So
a program's optimum is proven by a row, and so is that it has no point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from mipverify.presolve.layered import Layered
from mipverify.presolve.layers import tighten_by_layer

from mipverify.errors import Stopped
from mipverify.formulation import Milp
from mipverify.formulation.lp import LpSession
from mipverify.network import Network
from mipverify.proof.backward import Evidence, lower_sides, row_minimum
from mipverify.proof.bounds import Bounds, prefix
from mipverify.proof.facts import UnitBounds
from mipverify.proof.parts import never
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import Rows, unit_rows

SECONDS = 10.0  # for one program, which is not interrupted; most take milliseconds


@dataclass(frozen=True, eq=False)
class Sides:
    """What one program is made of: box low, high (n,); pre-activations lower, upper, and their upper lines' slope and
    offset (N,)."""

    low: np.ndarray
    high: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    slope: np.ndarray
    offset: np.ndarray


class LayeredProgram:
    """Programs over x, pre-activations z and post-activations y of a layered network, for rows (C,) over x and y."""

    def __init__(self, network: Network, layered: Layered, rows: Rows):
        self.network, self.layered = network, layered
        n, units = layered.inputs.shape[1], layered.begin[-1]
        one = scipy.sparse.eye_array(units, format="csr")
        affine = scipy.sparse.hstack(
            [-scipy.sparse.csr_array(layered.inputs), one, -scipy.sparse.csr_array(layered.units)]
        )
        above = scipy.sparse.hstack([scipy.sparse.csr_array((units, n)), -one, one])  # y - z
        # Rows y - slope * z: a slope that is zero somewhere must keep its place, for it is not zero everywhere.
        self.matrix = scipy.sparse.csr_array(scipy.sparse.vstack([affine, above, above], format="csr"))
        self.matrix.sort_indices()
        self.places = self.matrix.indptr[2 * units : 3 * units]  # of the slopes: z comes before y
        count = len(rows)
        self.objectives = np.zeros((count, n + 2 * units))
        ((node, array),) = rows.coefficients.items()
        flat = array.reshape(count, -1)
        self.objectives[:, :n] = flat[:, :n]
        self.objectives[:, n + units : n + units + layered.seen[node]] = flat[:, n:]
        self.offsets = np.zeros(count) if rows.constant is None else rows.constant

    @staticmethod
    def of(network: Network, rows: Rows) -> LayeredProgram | None:
        """None where the network is not layered, has no ReLUs, rows start elsewhere, or numbers are beyond float64."""
        layered = Layered.of(network, np.float64)
        if (
            layered is None
            or not layered.relus
            or len(rows.coefficients) > 1
            or not rows.coefficients.keys() <= layered.seen.keys()
        ):
            return None
        numbers = layered.inputs, layered.units, layered.bias, *rows.coefficients.values()
        given = (array for array in (*numbers, rows.constant) if array is not None)
        return LayeredProgram(network, layered, rows) if all(np.isfinite(array).all() for array in given) else None

    def sides(self, bounds: Bounds, count: int) -> Iterator[Sides | None]:
        """What the programs of the entries (count) of a batch are made of; None where bounds exclude each other."""
        low, high = (
            np.concatenate([np.broadcast_to(part, (count, *part.shape[1:])) for part in parts], axis=1)
            for parts in (
                [side[self.network.relu_source(relu)] for relu in self.layered.relus]
                for side in (bounds.lower, bounds.upper)
            )
        )
        lines = [bounds.lines[relu] for relu in self.layered.relus]
        slope, offset = (
            np.concatenate([np.broadcast_to(part, (count, *part.shape[1:])) for part in parts], axis=1)
            for parts in ([line.upper_slope for line in lines], [line.upper_offset for line in lines])
        )
        box = [side[0].reshape(len(side[0]), -1) for side in (bounds.lower, bounds.upper)]
        for k in range(count):
            bottom, top = (side[k if len(side) > 1 else 0] for side in box)
            crossed = (low[k] > high[k]).any()
            yield None if crossed else Sides(bottom, top, low[k], high[k], slope[k], offset[k])

    def costs(self, row: int, sign: float) -> tuple[np.ndarray, float]:
        """The objective (n + 2 N,) and the offset of `sign` times a row."""
        return sign * self.objectives[row], sign * float(self.offsets[row])

    def program(self, row: int, sign: float, sides: Sides) -> Milp:
        """The program that minimizes `sign` times a row."""
        data = self.matrix.data.copy()
        data[self.places] = -sides.slope
        matrix = scipy.sparse.csr_array((data, self.matrix.indices, self.matrix.indptr), shape=self.matrix.shape)
        units, bias = len(sides.lower), self.layered.bias
        infinite = np.full(units, np.inf)
        return Milp(
            *self.costs(row, sign),
            matrix,
            np.concatenate([bias, np.zeros(units), -infinite]),
            np.concatenate([bias, infinite, sides.offset]),
            np.concatenate([sides.low, sides.lower, np.zeros(units)]),
            np.concatenate([sides.high, sides.upper, np.maximum(sides.upper, 0.0)]),
            np.zeros(matrix.shape[1], bool),
        )

    def evidence(
        self, milp: Milp, multipliers: np.ndarray, empty: bool = False
    ) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """Lower slopes and multipliers of bounds (units,), by ReLU node, from those of a program's rows.

        empty: they are of the claim that there is no point, whatever the costs are.
        A program may share out what meets y over both lines and the bounds of y, where a pass back takes one line: that
        of a unit that is not unstable in any case. What this changes is made up for by the multipliers of z, so that
        all that the pass meets before is what the program has there.
        """
        n, units = self.layered.inputs.shape[1], self.layered.begin[-1]
        reduced = (0.0 if empty else milp.objective) - milp.matrix.T @ multipliers
        above, below = multipliers[units : 2 * units], multipliers[2 * units : 3 * units]  # of both lines
        z, y = reduced[n : n + units], reduced[n + units :]
        slope, (low, high) = -milp.matrix.data[self.places], (side[n : n + units] for side in (milp.lower, milp.upper))
        meets, through = above + below + y, above + slope * below  # y in the pass back; z behind it
        free = (meets > 0) & (low < 0) & (high > 0)
        slopes = np.divide(through, meets, out=slope.copy(), where=free).clip(0, 1)
        return self.by_layer(slopes), self.by_layer(z + meets * slopes - through)

    def by_layer(self, values: np.ndarray) -> dict[int, np.ndarray]:
        """Values (N,) by ReLU node."""
        layered = self.layered
        return {relu: values[layered.layer(k)] for k, relu in enumerate(layered.relus)}


def stacked(entries: Sequence[dict[int, np.ndarray]]) -> dict[int, np.ndarray]:
    """Arrays (units,) of some rows, by ReLU node, as one array (R, units) each."""
    return {node: np.stack([entry[node] for entry in entries]) for node in entries[0]}


def lp_tighten(bounds: Bounds, open_session: Callable[[], LpSession], stop: Callable[[], bool] = never) -> Bounds:
    """Bounds tightened by linear programs, layer by layer [Tjeng et al. 2019, section 4.2], for one entry.

    The upper side of a unit first: where it proves the unit inactive, the lower side is not asked for. Once `stop`
    returns true, units keep the bounds they have.
    """

    def bounder(bounds: Bounds, node: int, _: np.ndarray, units: np.ndarray) -> list[UnitBounds]:
        try:
            reduced = reduce(prefix(bounds, node), stop)
        except Stopped:
            return []
        below = reduced.bounds
        rows = unit_rows(below.network, below.network.output, units, None, below.like)
        programs = LayeredProgram.of(below.network, rows)
        if programs is None or not below.finite().all():
            return []
        found, session, highest = [], open_session(), np.full(len(units), np.inf)
        for sign in (-1.0, 1.0):
            done, slopes, multipliers = _solve(programs, session, below, np.flatnonzero(highest > 0), sign, stop)
            if done:
                own = rows.take(np.array(done)).scaled(np.full(len(done), sign))
                fact = lower_sides(row_minimum(below, own, Evidence(stacked(slopes), stacked(multipliers))))
                highest[done] = np.minimum(highest[done], fact.upper)
                found.append(reduced.lifted_outputs(fact))
        return found

    return tighten_by_layer(bounds, bounder, stop)


def _solve(
    programs: LayeredProgram,
    session: LpSession,
    bounds: Bounds,
    rows: np.ndarray,
    sign: float,
    stop: Callable[[], bool],
) -> tuple[list[int], list[dict[int, np.ndarray]], list[dict[int, np.ndarray]]]:
    """Programs of some rows times a sign: those that were answered, and the evidence of each."""
    (sides,) = programs.sides(bounds, 1)
    if sides is None or not len(rows):
        return [], [], []
    milp = programs.program(int(rows[0]), sign, sides)
    session.open(milp)
    done: list[int] = []
    slopes, multipliers = [], []
    for row in rows.tolist():
        if stop():
            break
        milp = milp.with_objective(*programs.costs(row, sign))
        session.set_costs(milp.objective, milp.offset)
        answer = session.solve(SECONDS)
        if answer.multipliers is not None:
            slope, multiplier = programs.evidence(milp, answer.multipliers)
            done.append(row)
            slopes.append(slope)
            multipliers.append(multiplier)
    return done, slopes, multipliers
