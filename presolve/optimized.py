"""Optimized CROWN: lower slopes and split multipliers by gradient, in float32; one sound float64 evaluation at the end.

Any slope in [0, 1] and any multiplier of the right sign gives a sound bound [Xu et al. 2021; Wang et al. 2021], so the
search may be as rough as it likes. The gradient needs no automatic differentiation: at the point that minimizes the
relaxed network, the derivative of the bound by a slope is the coefficient that meets the unit times the unit's
pre-activation there, and the derivative by a multiplier is minus that pre-activation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from mipverify.presolve.ascent import Adam, Search
from mipverify.presolve.inequalities import Link, known_signs, links, starting_multipliers, steps
from mipverify.presolve.layered import Layered
from mipverify.presolve.layered_ascent import LayeredAscent, fits
from mipverify.presolve.layers import tighten_by_layer

from mipverify.network import Input, Relu
from mipverify.network.graph import affine_value
from mipverify.proof.backward import (
    Evidence,
    estimate_backward,
    estimate_minimum,
    lower_sides,
    minimizer,
    minimum,
    pick,
    propagate_backward,
)
from mipverify.proof.bounds import Bounds, Intervals
from mipverify.proof.cuts import CutRelaxation, Cuts, LayerCuts
from mipverify.proof.facts import RowBounds, UnitBounds
from mipverify.proof.parts import never, row_chunks
from mipverify.proof.rows import InputRows, LinearBounds, Rows, unit_rows


@dataclass(frozen=True, eq=False)
class Optimum:
    """What the search found for each row.

    bound: what is proven of them, with `evidence`, whose arrays are float32. minimizer: the input (R, *input_shape)
    that minimizes the relaxed network, a good start for an attack. row: the rows as they reached the input, with their
    coefficients at each ReLU. preactivations: by ReLU node (R, *shape), the values there; scores for branching use
    both. values: what the relaxed network makes of the minimizer, by ReLU node (R, *shape).
    """

    bound: RowBounds
    evidence: Evidence
    minimizer: np.ndarray
    row: LinearBounds
    preactivations: dict[int, np.ndarray]
    values: dict[int, np.ndarray]

    @property
    def lower(self) -> np.ndarray:
        """The proven lower bounds (R,)."""
        return np.asarray(self.bound.lower)


def relaxed_values(
    intervals: Intervals, rows: InputRows, samples: np.ndarray | None, slopes: Mapping[int, np.ndarray]
) -> list[np.ndarray]:
    """Node values (R, *shape) of the relaxed network at each row's minimizing input, with the lines the row chose."""
    last = max(rows.passed, default=0)
    start = minimizer(intervals, rows.coefficients, samples)
    values: list[np.ndarray] = []
    for index, node in enumerate(intervals.network.nodes[: last + 1]):
        if isinstance(node, Input):
            values.append(start)
        elif isinstance(node, Relu):
            x, line = values[node.source], intervals.lines[index]
            if index not in rows.passed:
                values.append(np.maximum(x, 0))
                continue
            if index in rows.relaxed:
                y, _ = _with_cuts(intervals, index, rows, samples, x, slopes)
                values.append(y.reshape(x.shape))
                continue
            below = slopes[index] if index in slopes else pick(line.lower_slope, samples)
            above = pick(line.upper_slope, samples) * x + pick(line.upper_offset, samples)
            values.append(np.where(rows.passed[index] > 0, below * x, above))
        else:
            values.append(affine_value(node, values))
    return values


def _with_cuts(
    intervals: Intervals,
    node: int,
    rows: InputRows,
    samples: np.ndarray | None,
    x: np.ndarray,
    slopes: Mapping[int, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Post-activation and phase (R, units) at pre-activations x of a layer with cuts."""
    source, count = intervals.network.relu_source(node), len(x)
    lower, upper = (pick(side[source], samples) for side in (intervals.lower, intervals.upper))
    own = np.broadcast_to(slopes[node], x.shape).reshape(count, -1)
    flat = x.reshape(count, -1), lower.reshape(len(lower), -1), upper.reshape(len(upper), -1)
    return relaxed_point(rows.relaxed[node], *flat, own)


def relaxed_point(
    relaxed: CutRelaxation, x: np.ndarray, lower: np.ndarray, upper: np.ndarray, slopes: np.ndarray
) -> tuple[Any, Any]:
    """y and a (R, units) at pre-activations x (R, units): the derivatives of the envelope by weight and phase."""
    low, high = np.where(relaxed.free, lower, -1.0), np.where(relaxed.free, upper, 1.0)
    on_chord = (x - low) / (high - low)
    through = np.where(relaxed.phase > 0, 1 + (1 - slopes) * x / -low, slopes * x / high)
    a = np.where(relaxed.kink, through, on_chord)
    y = np.where(relaxed.kink, slopes * x, high * on_chord)
    active = np.broadcast_to(lower >= 0, x.shape)
    return np.where(relaxed.free, y, np.where(active, x, 0)), np.where(relaxed.free, a, active)


def optimize_rows(
    bounds: Bounds,
    rows: Rows,
    search: Search,
    *,
    start: Evidence | None = None,
    signs: Mapping[int, np.ndarray] | None = None,
    surrogate: Intervals | None = None,
    layered: Layered | None = None,
    stop: Callable[[], bool] | None = None,
    observe: Callable[[Mapping[int, np.ndarray], Mapping[int, np.ndarray]], None] | None = None,
) -> Optimum:
    """Raise the lower bounds of rows by ascent on slopes, split multipliers and cut multipliers.

    start: where to start, and the cuts to use. signs: by ReLU node (R, *shape), +1 where a unit was split to be >= 0,
    -1 where <= 0, 0 elsewhere. surrogate: the bounds in float32, made here if not given. layered: the network in layers
    if it has that form, for a faster search. observe: shown, at each step, the values of all nodes (R, *shape) and the
    phases of layers with cuts (R, units) at the relaxation's minimum.
    """
    start = start or Evidence()
    surrogate = surrogate or bounds.surrogate()
    surrogate_rows = rows.surrogate()
    count, reach = len(rows), max(rows.coefficients)
    shapes = {node: (count, *bounds.network.nodes[node].shape) for node in bounds.network.relus if node <= reach}
    free = {
        node: np.broadcast_to(pick(np.asarray(surrogate.unstable(node)), rows.samples), shape)
        for node, shape in shapes.items()
    }
    alpha = {
        node: np.broadcast_to(pick(surrogate.lines[node].lower_slope, rows.samples), shape).copy()
        for node, shape in shapes.items()
    }
    for node in alpha.keys() & start.slopes.keys():  # a unit that has been split since has a slope of its own now
        alpha[node] = np.where(free[node], start.slopes[node], alpha[node])
    sign = {node: s for node, s in (signs or {}).items() if node in shapes}
    held = known_signs(surrogate, shapes, rows.samples)
    sign |= held
    beta = {
        node: np.array(start.multipliers[node]) if node in start.multipliers else np.zeros(shapes[node], np.float32)
        for node in sign
    }
    linked = links(bounds.network) if held else {}
    fresh = {node: s for node, s in held.items() if node not in start.multipliers}
    beta |= starting_multipliers(surrogate, surrogate_rows, fresh, linked)
    cuts = {k: layer for k, layer in start.cuts.items() if k in shapes}
    weight = {
        k: np.array(start.cut_multipliers[k])
        if k in start.cut_multipliers
        else np.zeros((count, len(layer)), np.float32)
        for k, layer in cuts.items()
    }
    if search.iterations and alpha:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is proven to be worth nothing
            if layered is not None and observe is None and fits(layered, surrogate, surrogate_rows, start.cuts):
                layers = {k: layer for k, layer in cuts.items() if isinstance(layer, LayerCuts)}
                ascent = LayeredAscent(layered, surrogate, surrogate_rows, alpha, sign, beta, layers, weight)
                alpha, beta, weight = ascent.run(search, stop)
            else:
                thin_cuts = {k: layer.dense(np.float32) for k, layer in cuts.items()}
                found = Evidence(alpha, beta, thin_cuts, weight)
                given = surrogate, surrogate_rows, search, found
                alpha, beta, weight = _ascend(*given, sign, free, linked, stop, observe)
    return evaluate_rows(bounds, rows, Evidence(alpha, beta, start.cuts, weight))


def _ascend(
    intervals: Intervals,
    rows: Rows,
    search: Search,
    start: Evidence,
    sign: Mapping[int, np.ndarray],
    free: Mapping[int, np.ndarray],
    linked: Mapping[int, list[Link]],
    stop: Callable[[], bool] | None,
    observe: Callable[[Mapping[int, np.ndarray], Mapping[int, np.ndarray]], None] | None,
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray], dict[int, np.ndarray]]:
    """The best slopes, split multipliers and cut multipliers met, starting from those given; all float32."""
    alpha, beta, weight = dict(start.slopes), dict(start.multipliers), dict(start.cut_multipliers)
    cuts = start.cuts
    count = len(rows)
    slope_ascent = Adam(alpha, search.slope_step, lambda _, a: np.clip(a, 0, 1))
    beta_ascent = Adam(beta, search.multiplier_step, lambda k, b: sign[k] * np.maximum(sign[k] * b, 0))
    weight_ascent = Adam(weight, search.cut_step, lambda _, w: np.maximum(w, 0))
    best_weight = {k: v.copy() for k, v in weight.items()}
    best = np.full(count, -np.inf, np.float32)
    best_alpha = {k: v.copy() for k, v in alpha.items()}
    best_beta = {k: v.copy() for k, v in beta.items()}
    scale = 1.0
    units: dict[int, np.ndarray] = {}
    for step in range(search.iterations + 1):
        reached = estimate_backward(intervals, rows, Evidence(alpha, beta, cuts, weight), keep=True)
        value = estimate_minimum(intervals, reached, rows.samples)
        better = np.flatnonzero(value > best)
        best[better] = value[better]
        for k in alpha:
            best_alpha[k][better] = alpha[k][better]
        for k in beta:
            best_beta[k][better] = beta[k][better]
        for k in weight:
            best_weight[k][better] = weight[k][better]
        if step == search.iterations or bool(np.all(best > search.enough)) or (stop is not None and stop()):
            break
        values = relaxed_values(intervals, reached, rows.samples, alpha)
        # A row may reach less than what stands before it: the other branches of the network.
        known = {k: intervals.network.relu_source(k) for k in alpha}
        sources = {k: values[source] for k, source in known.items() if source < len(values)}
        nodes = [k for k in alpha if k in reached.passed]
        slope_ascent.ascend({k: np.where(free[k], _bend(reached, k) * sources[k], 0) for k in nodes}, scale)
        answers = {
            k: _with_cuts(intervals, k, reached, rows.samples, sources[k], alpha) for k in cuts if k in reached.relaxed
        }
        if observe is not None:
            observe(dict(enumerate(values)), {k: a for k, (_, a) in answers.items()})
        if not units:
            units = {k: _size(c) for k, c in reached.passed.items()} | steps(reached.passed, linked, beta, count)
        excess = {k: _excess(cuts[k], y, a, values[cuts[k].source]) for k, (y, a) in answers.items()}
        weight_ascent.ascend(excess, scale, {k: units[k].reshape(count, 1) for k in excess})
        beta_ascent.ascend(
            {k: np.abs(sign[k]) * -sources[k] for k in beta if k in units and k in sources}, scale, units
        )
        scale *= search.decay
    return best_alpha, best_beta, best_weight


def _size(coefficients: np.ndarray) -> np.ndarray:
    """The mean size of each row's coefficients (R, *shape), such that it broadcasts to them."""
    return np.abs(coefficients).mean(axis=tuple(range(1, coefficients.ndim)), keepdims=True)


def _bend(rows: InputRows, node: int) -> np.ndarray:
    """The derivative of a line's slope by the choice between 0 and 1 that it stands for, (R, *shape)."""
    if node not in rows.relaxed:
        return np.maximum(rows.passed[node], 0)
    relaxed = rows.relaxed[node]
    return np.where(relaxed.kink, relaxed.right - relaxed.left, 0).reshape(rows.passed[node].shape)


def _excess(cuts: Cuts, y: np.ndarray, a: np.ndarray, z: np.ndarray) -> np.ndarray:
    """By how much points (R, ...) violate the cuts, (R, T)."""
    return cuts.of_units(y) - cuts.at(z.reshape(len(y), -1)) - cuts.step * cuts.of_units(a) - cuts.limit


def evaluate_rows(bounds: Bounds, rows: Rows, evidence: Evidence) -> Optimum:
    """What evidence (float32) proves of rows, in float64, and what the relaxed minimizer looks like."""
    wide = Evidence(
        {k: v.astype(np.float64) for k, v in evidence.slopes.items()},
        {k: v.astype(np.float64) for k, v in evidence.multipliers.items()},
        evidence.cuts,
        {k: v.astype(np.float64) for k, v in evidence.cut_multipliers.items()},
    )
    reached = propagate_backward(bounds, rows, wide, keep=True)
    values = relaxed_values(bounds, reached, rows.samples, wide.slopes)
    sources = {k: values[bounds.network.relu_source(k)] for k in reached.passed}
    own = {k: values[k] for k in reached.passed if k < len(values)}
    return Optimum(minimum(reached), evidence, values[0], reached, sources, own)


def optimized_crown(bounds: Bounds, search: Search | None = None, stop: Callable[[], bool] = never) -> Bounds:
    """Bounds tightened by optimized CROWN [Xu et al. 2021], with slopes of its own for every unstable unit and side.

    Once `stop` returns true, units keep the bounds they have.
    """
    search = search or Search()

    def bounder(bounds: Bounds, node: int, samples: np.ndarray, units: np.ndarray) -> Iterator[UnitBounds]:
        return optimized_units(bounds, node, samples, units, search, stop)

    return tighten_by_layer(bounds, bounder, stop)


def optimized_units(
    bounds: Bounds,
    node: int,
    samples: np.ndarray,
    units: np.ndarray,
    search: Search,
    stop: Callable[[], bool] = never,
) -> Iterator[UnitBounds]:
    """What optimized CROWN shows of single entries `units` (R,) of `node` in the entries `samples` (R,) of the batch.

    The upper side first: where it already proves a unit inactive, the lower side is not worked for [Tjeng et al. 2019].
    """
    surrogate = bounds.surrogate()
    for part in row_chunks(bounds.network, node, len(units), passes=3):  # in float64 after `stop`, too
        if stop():
            return
        entries = None if bounds.batch == 1 else samples[part]
        rows = unit_rows(bounds.network, node, units[part], entries, bounds.like)
        above = optimize_rows(bounds, rows.negated(), search, surrogate=surrogate, stop=stop)
        yield lower_sides(above.bound)
        known = bounds.upper[node].reshape(len(bounds.upper[node]), -1)
        highest = np.minimum(known[0 if len(known) == 1 else samples[part], units[part]], -above.lower)
        open_ = np.flatnonzero(highest > 0)
        if len(open_):
            below = optimize_rows(bounds, rows.take(open_), search, surrogate=surrogate, stop=stop)
            yield lower_sides(below.bound)
