"""Constraint propagation: what is left of boxes and pre-activations where some rows are not positive.

Feasibility-based bound tightening [Savelsbergh 1994; Achterberg et al. 2020, presolve reductions of MILPs] over a
layered network: each pre-activation is a linear constraint on inputs and post-activations, which tightens its parts
as these tighten it. A row r <= 0 counts as the plane below it that backward propagation ends in, and as what each
ReLU adds to that plane: r = plane(x) + sum of gaps, no gap negative, so that none exceeds the distance from the
plane's minimum to zero. Evidence only, in float64 to nearest: whoever concludes has rules of `mipverify.proof` say
so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from mipverify.presolve.layered import Layered

TOUCHES = 1e-7  # relative to the size of a value: closer than that, bounds do not exclude each other
WORTH = 1e-3  # of a width: smaller gains are not followed up
SHORTER = 2.0  # how many times a constraint with one step less to go counts
ROUNDS = 40  # of propagation, after which what is left is taken as it is


@dataclass(frozen=True, eq=False)
class Domains:
    """Parts of an input box, by batch: inputs low, high (K, n), and pre-activations lower, upper (K, N).

    empty (K,): whether nothing is left.
    """

    low: np.ndarray
    high: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    empty: np.ndarray

    def take(self, some: np.ndarray) -> Domains:
        """Some of them, by index array; one may be taken several times. The arrays are copies."""
        return Domains(self.low[some], self.high[some], self.lower[some], self.upper[some], self.empty[some])

    @staticmethod
    def join(parts: list[Domains]) -> Domains:
        """All of some batches."""
        names = ("low", "high", "lower", "upper", "empty")
        return Domains(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def unstable(self) -> np.ndarray:
        """Units whose sign is not decided (K, N)."""
        return (self.lower < 0) & (self.upper > 0)


class Propagation:
    """Rows C w + c <= 0 over the inputs and post-activations w = (x, y) of a layered network.

    rows (R, n + N), offset (R,).
    """

    def __init__(self, layered: Layered, rows: np.ndarray, offset: np.ndarray):
        self.layered, self.rows, self.offset = layered, rows, offset
        self.inputs = layered.inputs.shape[1]
        matrix = scipy.sparse.csr_array(np.hstack([layered.inputs, layered.units]))
        matrix.eliminate_zeros()
        self.positive, self.negative = (scipy.sparse.csr_array(part) for part in (matrix.maximum(0), matrix.minimum(0)))
        entries = scipy.sparse.coo_array(matrix)
        order = np.lexsort((entries.coords[0], entries.coords[1]))  # column by column
        self.unit, self.column, self.value = entries.coords[0][order], entries.coords[1][order], entries.data[order]
        self.present, self.begin = np.unique(self.column, return_index=True)
        self.step = np.maximum(np.abs(matrix).max(axis=1).toarray().reshape(-1), 1e-30)
        self.reads = scipy.sparse.csr_array((matrix != 0).astype(np.float64))[:, : self.inputs]

    @property
    def work(self) -> int:
        """Multiplications of a round for one entry of a batch, about."""
        return 8 * len(self.value) + len(self.rows) * (self.layered.inputs.size + self.layered.units.size)

    def start(self, low: np.ndarray, high: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> Domains:
        """One whole box: inputs (n,), pre-activations (N,)."""
        first, second, third, fourth = (np.array(side, np.float64)[None] for side in (low, high, lower, upper))
        return Domains(first, second, third, fourth, np.zeros(1, bool))

    def tighten(self, domains: Domains) -> None:
        """Propagate until nothing moves much, in place."""
        going = np.flatnonzero(~domains.empty)
        for _ in range(ROUNDS):
            if not len(going):
                return
            part = domains.take(going)
            before = part.take(np.arange(len(going)))
            self._units(part)
            self._rows(part)
            self._touch(part)
            for name in ("low", "high", "lower", "upper", "empty"):
                getattr(domains, name)[going] = getattr(part, name)
            going = going[_moved(before, part) & ~part.empty]

    def tension(self, domains: Domains) -> np.ndarray:
        """How close each pre-activation's bounds are to fixing its summands (K, N), 0 where they say nothing of these.

        What is left until then counts in largest summands, as literals of clauses do in look-ahead solvers.
        """
        _, _, least, most = self._sums(domains)
        slack = TOUCHES * (1 + np.abs(least))
        room, depth = (np.maximum(side, 0.0) / self.step for side in (domains.upper - least, most - domains.lower))
        above = np.where(most > domains.upper + slack, SHORTER**-room, 0.0)
        below = np.where(least < domains.lower - slack, SHORTER**-depth, 0.0)
        return np.asarray(above + below)

    def _sums(self, part: Domains) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Bounds of inputs and post-activations (K, n + N), and what pre-activations come to within them (K, N)."""
        low, high = (
            np.concatenate([x, np.maximum(z, 0.0)], axis=1)
            for x, z in ((part.low, part.lower), (part.high, part.upper))
        )
        least = (self.positive @ low.T + self.negative @ high.T).T + self.layered.bias
        most = (self.positive @ high.T + self.negative @ low.T).T + self.layered.bias
        return low, high, least, most

    def _units(self, part: Domains) -> None:
        """Each pre-activation and its summands."""
        low, high, least, most = self._sums(part)
        np.maximum(part.lower, least, out=part.lower)
        np.minimum(part.upper, most, out=part.upper)
        above, below = (part.upper - least)[:, self.unit], (most - part.lower)[:, self.unit]
        # A summand moves by no more than the sum may from its end.
        step = 1.0 / self.value
        up = self.value > 0
        first, second = np.where(up, above, below) * np.abs(step), np.where(up, below, above) * np.abs(step)
        least_high = np.minimum.reduceat(first, self.begin, axis=1) + low[:, self.present]
        most_low = high[:, self.present] - np.minimum.reduceat(second, self.begin, axis=1)
        low[:, self.present] = np.maximum(low[:, self.present], most_low)
        high[:, self.present] = np.minimum(high[:, self.present], least_high)
        self._put(part, low, high)

    def _put(self, part: Domains, low: np.ndarray, high: np.ndarray) -> None:
        """Take over bounds of inputs and post-activations (K, n + N)."""
        n = self.inputs
        np.maximum(part.low, low[:, :n], out=part.low)
        np.minimum(part.high, high[:, :n], out=part.high)
        np.minimum(part.upper, np.where(high[:, n:] < part.upper, high[:, n:], part.upper), out=part.upper)
        np.maximum(part.lower, np.where(low[:, n:] > 0, low[:, n:], part.lower), out=part.lower)

    def passed(self, part: Domains) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the rows come to: coefficients that meet the units (K, R, N), and the planes below the rows,
        (K, R, n) and (K, R)."""
        layered, n = self.layered, self.inputs
        count = len(part.lower)
        met = np.broadcast_to(self.rows[:, n:], (count, *self.rows[:, n:].shape)).copy()
        plane = np.broadcast_to(self.rows[:, :n], (count, len(self.rows), n)).copy()
        constant = np.broadcast_to(self.offset, (count, len(self.rows))).copy()
        active = part.lower >= 0
        lower, upper = np.minimum(part.lower, 0.0), np.maximum(part.upper, 0.0)
        width = np.where(upper > lower, upper - lower, 1.0)
        slope = np.where(active, 1.0, upper / width)
        height = np.where(active, 0.0, -lower * upper / width)
        for layer in reversed(range(len(layered.relus))):
            here = layered.layer(layer)
            own = met[:, :, here]
            through = own * np.where(own > 0, active[:, None, here], slope[:, None, here])
            constant += (np.minimum(own, 0.0) * height[:, None, here]).sum(axis=2) + through @ layered.bias[here]
            plane += through @ layered.inputs[here]
            if layer:
                met[:, :, : here.start] += through @ layered.units[here, : here.start]
        return met, plane, constant

    def _rows(self, part: Domains) -> None:
        """The rows, each by its plane and by what its ReLUs add."""
        met, plane, constant = self.passed(part)
        center, radius = 0.5 * (part.low + part.high), 0.5 * (part.high - part.low)
        least = constant + np.einsum("krn,kn->kr", plane, center) - np.einsum("krn,kn->kr", np.abs(plane), radius)
        size = 1.0 + np.abs(constant)
        part.empty[:] |= (least > TOUCHES * size).any(axis=1)
        slack = np.maximum(-least, 0.0)[:, :, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.where(plane != 0, slack / np.abs(plane), np.inf)
            highest = np.where(met > 0, slack / met, np.inf).min(axis=1)
        high = (part.low[:, None] + np.where(plane > 0, reach, np.inf)).min(axis=1)
        low = (part.high[:, None] - np.where(plane < 0, reach, np.inf)).max(axis=1)
        np.minimum(part.high, high, out=part.high)
        np.maximum(part.low, low, out=part.low)
        free = part.lower < 0
        np.minimum(part.upper, np.where(free, highest, np.inf), out=part.upper)

    def _touch(self, part: Domains) -> None:
        """Bounds that cross by rounding alone are one; others leave nothing."""
        for low, high in ((part.low, part.high), (part.lower, part.upper)):
            crossed = low > high
            apart = crossed & (low - high > TOUCHES * (1.0 + np.abs(low)))
            part.empty[:] |= apart.any(axis=1)
            middle = 0.5 * (low + high)
            low[crossed] = middle[crossed]
            high[crossed] = middle[crossed]


def _moved(before: Domains, after: Domains) -> np.ndarray:
    """Mask (K,) of those in which some width has shrunk by what is worth another round."""
    found = np.zeros(len(after.empty), bool)
    for low, high in (("low", "high"), ("lower", "upper")):
        old = getattr(before, high) - getattr(before, low)
        new = getattr(after, high) - getattr(after, low)
        found |= (old - new > WORTH * old + TOUCHES).any(axis=1)
    return found
