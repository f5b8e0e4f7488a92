"""The ascent of optimized CROWN on a layered network: rows are columns, all units stand one below the other.

What it computes is what `optimize_rows` does by the graph; only its answer has to be proven, so all is float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from mipverify.presolve.ascent import Adam, Search
from mipverify.presolve.inequalities import STEP
from mipverify.presolve.layered import Layered

from mipverify.proof.bounds import Intervals
from mipverify.proof.cuts import Cuts, LayerCuts
from mipverify.proof.rows import Rows

FINISHED = 0.5  # share of the columns that need no more steps, from which on the others go on alone

Arrays = dict[int, np.ndarray]


@dataclass(eq=False)
class _State:
    """What differs from column to column (K); (N, K), or (N, 1) where all have the same.

    free, active: which units are unstable, and which of the others pass. lower, upper: bounds of z, harmless ones where
    it is not free. sign: of splits. above, offset: upper lines. start: the rows' coefficients of units; first: of
    inputs (n, K); constant (K,). low, high: of the inputs (n, 1 or K).
    """

    free: np.ndarray
    active: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    sign: np.ndarray
    above: np.ndarray
    offset: np.ndarray
    start: np.ndarray
    first: np.ndarray
    constant: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def keep(self, columns: np.ndarray) -> _State:
        """Some of the columns; what all share stays as it is."""
        arrays = (array if array.shape[-1] == 1 else array[..., columns] for array in self.__dict__.values())
        return _State(*arrays)


def fits(layered: Layered, surrogate: Intervals, rows: Rows, cuts: Mapping[int, Cuts] | None) -> bool:
    """Whether rows over these boxes can be raised here."""
    if not surrogate.over_boxes or rows.samples is not None:
        return False
    if any(not isinstance(own, LayerCuts) or own.source not in layered.seen for own in (cuts or {}).values()):
        return False
    return all(node in layered.seen or node in layered.relus for node in rows.coefficients)


class LayeredAscent:
    """Slopes, split multipliers and cut multipliers of some rows (K), improved together.

    surrogate, rows and cuts (dense) in float32. alpha, beta: by ReLU node (K, *shape); sign: the same for those that
    have beta; weight: by ReLU node (K, cuts).
    """

    def __init__(
        self,
        layered: Layered,
        surrogate: Intervals,
        rows: Rows,
        alpha: Arrays,
        sign: Arrays,
        beta: Arrays,
        cuts: Mapping[int, LayerCuts],
        weight: Arrays,
    ):
        self.layered, self.layers = layered, len(alpha)
        self.units = layered.begin[self.layers]
        self.count = count = len(rows)
        self.with_beta, self.with_cuts = list(beta), [relu for relu in layered.relus if relu in weight]
        held = surrogate.network.inequalities
        self.held = [layer for layer, relu in enumerate(layered.relus[: self.layers]) if relu in held]
        self.shapes = {relu: array.shape for relu, array in alpha.items()}
        self.alpha = layered.column(alpha, self.layers)
        self.beta = layered.column(beta, self.layers) if beta else np.zeros((self.units, count), np.float32)
        self.cuts = layered.columns(cuts, self.layers)
        self.weight = np.concatenate([np.zeros((0, count), np.float32), *(weight[k].T for k in self.with_cuts)])
        self.state = self._start(surrogate, rows, sign)

    def _start(self, surrogate: Intervals, rows: Rows, sign: Arrays) -> _State:
        layered, bounds, lines, count = self.layered, surrogate, surrogate.lines, self.count
        sources = {relu: surrogate.network.relu_source(relu) for relu in layered.relus[: self.layers]}
        low, high, slope, offset = (
            layered.column(own, self.layers)
            for own in (
                {relu: bounds.lower[source] for relu, source in sources.items()},
                {relu: bounds.upper[source] for relu, source in sources.items()},
                {relu: lines[relu].upper_slope for relu in sources},
                {relu: lines[relu].upper_offset for relu in sources},
            )
        )
        start = np.zeros((self.units, count), np.float32)
        first = np.zeros((surrogate.network.input_size, count), np.float32)
        for node, array in rows.coefficients.items():
            flat = array.reshape(count, -1).T
            if node in layered.seen:
                first += flat[: len(first)]
                start[: layered.seen[node]] += flat[len(first) :]
            else:
                start[layered.layer(layered.relus.index(node))] += flat
        constant = np.zeros(count, np.float32) if rows.constant is None else rows.constant
        box = (side[0].reshape(len(side[0]), -1).T for side in (bounds.lower, bounds.upper))
        signs = layered.column(sign, self.layers)
        free = (low < 0) & (high > 0)
        safe = np.where(free, low, np.float32(-1)), np.where(free, high, np.float32(1))
        return _State(free, low >= 0, *safe, signs, slope, offset, start, first, constant, *box)

    def run(self, search: Search, stop: Callable[[], bool] | None) -> tuple[Arrays, Arrays, Arrays]:
        """The best slopes, split multipliers and cut multipliers met, by ReLU node as they were given."""
        state, alive = self.state, np.arange(self.count)
        value = np.full(self.count, -np.inf, np.float32)
        best = self.alpha.copy(), self.beta.copy(), self.weight.copy()
        alpha = Adam({0: self.alpha}, search.slope_step, lambda _, a: np.clip(a, 0, 1))
        beta = Adam({0: self.beta}, search.multiplier_step, lambda _, b: state.sign * np.maximum(state.sign * b, 0))
        weight = Adam({0: self.weight}, search.cut_step, lambda _, w: np.maximum(w, 0))
        size: np.ndarray | None = None
        scale = 1.0
        for step in range(search.iterations + 1):
            now = alpha.arrays[0], beta.arrays[0], weight.arrays[0]
            reached = _Pass(self, state, *now)
            better = np.flatnonzero(reached.value > value[alive])
            value[alive[better]] = reached.value[better]
            for kept, array in zip(best, now, strict=True):
                kept[:, alive[better]] = array[:, better]
            open_ = value[alive] <= search.enough
            if step == search.iterations or not open_.any() or (stop is not None and stop()):
                break
            slopes, splits, excess = reached.gradients()
            if size is None:
                size = self._size(reached.coefficients)
            alpha.ascend({0: slopes}, scale)
            if self.with_beta:
                beta.ascend({0: splits}, scale, {0: size})
            if self.with_cuts:
                weight.ascend({0: excess}, scale, {0: size[self.cuts.unit]})
            scale *= search.decay
            if open_.mean() <= 1 - FINISHED:
                columns = np.flatnonzero(open_)
                state, alive, size = state.keep(columns), alive[columns], size[:, columns]
                for ascent in (alpha, beta, weight):
                    ascent.keep(columns)
        return self._by_node(*best)

    def _size(self, coefficients: np.ndarray) -> np.ndarray:
        """The mean size of a row's coefficients at the layer of each unit; at that of an inequality, a share of the
        largest of those of the units that it is about."""
        size = np.abs(coefficients)
        about = {}
        for index in self.held:
            here = np.abs(self.layered.units[self.layered.layer(index), : self.units])
            about[index] = STEP * np.stack([(own[:, None] * size).max(axis=0) for own in here])
        for index in range(self.layers):
            here = self.layered.layer(index)
            size[here] = about[index] if index in about else size[here].mean(axis=0)
        return size

    def _by_node(self, alpha: np.ndarray, beta: np.ndarray, weight: np.ndarray) -> tuple[Arrays, Arrays, Arrays]:
        found: tuple[Arrays, Arrays, Arrays] = ({}, {}, {})
        for index, relu in enumerate(self.layered.relus[: self.layers]):
            here = self.layered.layer(index)
            found[0][relu] = np.ascontiguousarray(alpha[here].T).reshape(self.shapes[relu])
            if relu in self.with_beta:
                found[1][relu] = np.ascontiguousarray(beta[here].T).reshape(self.shapes[relu])
            if relu in self.with_cuts:
                found[2][relu] = np.ascontiguousarray(weight[self.cuts.layer(index)].T)
        return found


class _Pass:
    """One pass back: the bounds (K,) of the rows, and what their gradients hang on, all (N, K).

    coefficients: with which units are met, cuts included. bend: the derivative of a line's slope by its alpha. For
    layers with cuts, as in `CutRelaxation`: phase, and whether the envelope has a kink.
    """

    def __init__(self, ascent: LayeredAscent, state: _State, alpha: np.ndarray, beta: np.ndarray, weight: np.ndarray):
        self.ascent, self.state, self.alpha, self.weight = ascent, state, alpha, weight
        layered, cuts = ascent.layered, ascent.cuts
        self.coefficients = c = state.start.copy()
        self.bend = np.empty_like(c)
        self.kinks: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        through = np.empty_like(c)
        a, constant = state.first.copy(), state.constant.copy()
        if len(weight):
            constant -= cuts.limit @ weight
        for index in reversed(range(ascent.layers)):
            here, before = layered.layer(index), layered.begin[index]
            if cuts.begin[index] < cuts.begin[index + 1]:
                own = cuts.layer(index)
                constant += self._meet(index, here, own, through)
                a -= cuts.over_inputs[index].adjoint(weight[own])
                c[: cuts.over_units[index].shape[1]] -= cuts.over_units[index].adjoint(weight[own])
            else:
                positive = np.maximum(c[here], 0)
                negative = c[here] - positive
                self.bend[here] = positive
                through[here] = positive * alpha[here] + negative * state.above[here]
                constant += (negative * state.offset[here]).sum(axis=0)
            through[here] -= beta[here]
            a += layered.over_inputs[index].adjoint(through[here])
            if before:
                c[:before] += layered.over_units[index].adjoint(through[here])
        constant += layered.bias[: ascent.units] @ through
        self.point = np.where(a > 0, state.low, state.high)
        value = constant + np.einsum("nk,nk->k", a, self.point)
        self.value = np.where(np.isfinite(value), value, -np.inf)

    def _meet(self, index: int, here: slice, own: slice, through: np.ndarray) -> np.ndarray:
        """Meet a layer with cuts (as in `relax_with_cuts`); what that adds to the constants, but for the limits."""
        state, cuts, c = self.state, self.ascent.cuts, self.coefficients
        sums, weight = cuts.sums[index], self.weight[own]
        c[here] += sums.apply(weight)
        phase = sums.apply(weight * cuts.step[own, None])
        lower, upper, free, active = (v[here] for v in (state.lower, state.upper, state.free, state.active))
        middle, end = np.minimum(0, -phase), c[here] * upper - phase
        chord = end / (upper - lower)
        kink = middle < -chord * lower
        left, right = middle / -lower, (end - middle) / upper
        slope = np.where(kink, left + self.alpha[here] * (right - left), chord)
        offset = np.minimum(np.minimum(-slope * lower, 0), np.minimum(-phase, (c[here] - slope) * upper - phase))
        self.bend[here] = np.where(kink, right - left, 0)
        self.kinks[index] = kink, phase
        through[here] = np.where(free, slope, np.where(active, c[here], 0))
        return np.asarray(np.where(free, offset, np.where(active, -phase, 0)).sum(axis=0))

    def gradients(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Derivatives of the bounds by slopes, by split multipliers (N, K) and by cut multipliers (T, K)."""
        ascent, state, alpha = self.ascent, self.state, self.alpha
        layered, cuts = ascent.layered, ascent.cuts
        z = np.empty_like(self.coefficients)
        y, phases = np.empty_like(z), np.zeros_like(z) if len(cuts.unit) else z
        for index in range(ascent.layers):
            here, before = layered.layer(index), layered.begin[index]
            z[here] = layered.over_inputs[index].apply(self.point)
            z[here] += layered.bias[here, None]
            if before:
                z[here] += layered.over_units[index].apply(y[:before])
            if index in self.kinks:
                y[here], phases[here] = self._relaxed_point(index, here, z[here])
            else:
                upper = state.above[here] * z[here] + state.offset[here]
                y[here] = np.where(self.coefficients[here] > 0, alpha[here] * z[here], upper)
        slopes = np.where(state.free, self.bend * z, 0)
        excess = self.weight
        if len(cuts.unit):
            excess = y[cuts.unit] - cuts.step[:, None] * phases[cuts.unit] - cuts.limit[:, None]
            for index in self.kinks:
                own, met = cuts.layer(index), cuts.over_units[index]
                excess[own] -= cuts.over_inputs[index].apply(self.point)
                excess[own] -= met.apply(y[: met.shape[1]])
        return slopes, np.abs(state.sign) * -z, excess

    def _relaxed_point(self, index: int, here: slice, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """y and a at pre-activations z of a layer with cuts (as in `relaxed_point`)."""
        kink, phase = self.kinks[index]
        state, alpha = self.state, self.alpha[here]
        lower, upper, free, active = (v[here] for v in (state.lower, state.upper, state.free, state.active))
        on_chord = (z - lower) / (upper - lower)
        bent = np.where(phase > 0, 1 + (1 - alpha) * z / -lower, alpha * z / upper)
        a, y = np.where(kink, bent, on_chord), np.where(kink, alpha * z, upper * on_chord)
        return np.where(free, y, np.where(active, z, 0)), np.where(free, a, active)
