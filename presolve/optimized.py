"""Optimized CROWN: lower slopes and split multipliers by gradient, in float32; one sound float64 evaluation at the end.

Any slope in [0, 1] and any multiplier of the right sign gives a sound bound [Xu et al. 2021; Wang et al. 2021], so the
search may be as rough as it likes. The gradient needs no automatic differentiation: at the point that minimizes the
relaxed network, the derivative of the bound by a slope is the coefficient that meets the unit times the unit's
pre-activation there, and the derivative by a multiplier is minus that pre-activation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from mipverify.presolve.ascent import Adam, Search
from mipverify.presolve.layered import Layered
from mipverify.presolve.layered_ascent import LayeredAscent, fits
from mipverify.presolve.layers import Known, tighten_by_layer

from mipverify.network import Input, Network, Relu
from mipverify.network.graph import affine_value
from mipverify.proof.backward import Relaxed, minimizer, minimum_over_box, pass_back, pick
from mipverify.proof.bounds import Bounds
from mipverify.proof.cuts import Cuts, LayerCuts, respond
from mipverify.proof.parts import never, row_chunks
from mipverify.proof.rows import InputRows, Rows, unit_rows
from mipverify.specification.regions import Region


@dataclass(frozen=True, eq=False)
class Optimum:
    """What the search found for each row.

    lower: sound lower bounds (R,) in float64. slopes, multipliers: by ReLU node, (R, *shape) float32, with which they
    hold. minimizer: the input (R, *input_shape) that minimizes the relaxed network, a good start for an attack.
    row: the rows as they reached the input, with their coefficients at each ReLU. preactivations: by ReLU node
    (R, *shape), the values there; scores for branching use both. cut_multipliers: by ReLU node (R, cuts) float32.
    values: what the relaxed network makes of the minimizer, by ReLU node (R, *shape).
    """

    lower: np.ndarray
    slopes: dict[int, np.ndarray]
    multipliers: dict[int, np.ndarray]
    minimizer: np.ndarray
    row: InputRows
    preactivations: dict[int, np.ndarray]
    cut_multipliers: dict[int, np.ndarray]
    values: dict[int, np.ndarray]


def relaxed_values(
    relaxed: Relaxed, rows: InputRows, samples: np.ndarray | None, slopes: Mapping[int, np.ndarray]
) -> list[np.ndarray]:
    """Node values (R, *shape) of the relaxed network at each row's minimizing input, with the lines the row chose."""
    last = max(rows.passed, default=0)
    start = minimizer(relaxed, rows.coefficients, samples)
    values: list[np.ndarray] = []
    for index, node in enumerate(relaxed.network.nodes[: last + 1]):
        if isinstance(node, Input):
            values.append(start)
        elif isinstance(node, Relu):
            x, line = values[node.source], relaxed.lines[index]
            if index not in rows.passed:
                values.append(np.maximum(x, 0))
                continue
            if index in rows.met:
                y, _ = _respond(relaxed, index, rows, samples, x, slopes)
                values.append(y.reshape(x.shape))
                continue
            below = slopes[index] if index in slopes else pick(line.lower_slope, samples)
            above = pick(line.upper_slope, samples) * x + pick(line.upper_offset, samples)
            values.append(np.where(rows.passed[index] > 0, below * x, above))
        else:
            values.append(affine_value(node, values))
    return values


def _respond(
    relaxed: Relaxed,
    node: int,
    rows: InputRows,
    samples: np.ndarray | None,
    x: np.ndarray,
    slopes: Mapping[int, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Post-activation and phase (R, units) at pre-activations x of a layer with cuts."""
    source, count = relaxed.network.relu_source(node), len(x)
    lower, upper = (pick(side[source], samples) for side in (relaxed.bounds.lower, relaxed.bounds.upper))
    own = np.broadcast_to(slopes[node], x.shape).reshape(count, -1)
    return respond(
        rows.met[node], x.reshape(count, -1), lower.reshape(len(lower), -1), upper.reshape(len(upper), -1), own
    )


def optimize_rows(
    relaxed: Relaxed,
    rows: Rows,
    search: Search,
    *,
    slopes: Mapping[int, np.ndarray] | None = None,
    signs: Mapping[int, np.ndarray] | None = None,
    multipliers: Mapping[int, np.ndarray] | None = None,
    cuts: Mapping[int, Cuts] | None = None,
    cut_multipliers: Mapping[int, np.ndarray] | None = None,
    sketch: Relaxed | None = None,
    stop: Callable[[], bool] | None = None,
    observe: Callable[[Mapping[int, np.ndarray], Mapping[int, np.ndarray]], None] | None = None,
) -> Optimum:
    """Raise the lower bounds of rows by ascent on slopes, split multipliers and cut multipliers.

    relaxed: in float64. sketch: the same in float32, made here if not given. slopes, multipliers: where to start.
    signs: by ReLU node (R, *shape), +1 where a unit was split to be >= 0, -1 where <= 0, 0 elsewhere.
    cuts, cut_multipliers: rows that hold by ReLU node, and where to start with them, (R, cuts). observe: shown, at each
    step, the values of all nodes (R, *shape) and the phases of layers with cuts (R, units) at the relaxation's minimum.
    """
    sketch = sketch or Relaxed(relaxed.bounds.astype(np.float32))
    thin = rows.surrogate()
    count = len(next(iter(rows.coefficients.values())))
    reach = max(rows.coefficients)
    shapes = {node: (count, *relaxed.network.nodes[node].shape) for node in relaxed.network.relus if node <= reach}
    free = {node: np.broadcast_to(pick(_unstable(sketch, node), rows.samples), shape) for node, shape in shapes.items()}
    alpha = {
        node: np.broadcast_to(pick(sketch.lines[node].lower_slope, rows.samples), shape).copy()
        for node, shape in shapes.items()
    }
    for node in alpha.keys() & (slopes or {}).keys():  # a unit that has been split since has a slope of its own now
        alpha[node] = np.where(free[node], slopes[node], alpha[node])  # type: ignore[index]
    sign = {node: s for node, s in (signs or {}).items() if node in shapes}
    beta = {
        node: np.array(multipliers[node]) if multipliers and node in multipliers else np.zeros(shapes[node], np.float32)
        for node in sign
    }
    thin_cuts = {k: layer.dense(np.float32) for k, layer in (cuts or {}).items() if k in shapes}
    weight = {
        k: np.array(cut_multipliers[k])
        if cut_multipliers and k in cut_multipliers
        else np.zeros((count, len(layer)), np.float32)
        for k, layer in thin_cuts.items()
    }
    if search.iterations and alpha:
        start = alpha, sign, beta
        layered = _layered(relaxed) if observe is None else None
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is proven to be worth nothing
            if layered is not None and fits(layered, sketch, thin, cuts):
                layers = {k: layer for k, layer in thin_cuts.items() if isinstance(layer, LayerCuts)}
                ascent = LayeredAscent(layered, sketch, thin, *start, layers, weight)
                alpha, beta, weight = ascent.run(search, stop)
            else:
                alpha, beta, weight = _ascend(sketch, thin, search, *start, free, thin_cuts, weight, stop, observe)
    return evaluate_rows(relaxed, rows, alpha, beta, cuts, weight)


def _layered(relaxed: Relaxed) -> Layered | None:
    """The network in layers, if it is of that form; made once for all boxes within the outermost ones."""
    if Layered not in relaxed.kept:
        relaxed.kept[Layered] = Layered.of(relaxed.network)
    found: Layered | None = relaxed.kept[Layered]
    return found


def _ascend(
    sketch: Relaxed,
    rows: Rows,
    search: Search,
    alpha: dict[int, np.ndarray],
    sign: Mapping[int, np.ndarray],
    beta: dict[int, np.ndarray],
    free: Mapping[int, np.ndarray],
    cuts: Mapping[int, Cuts],
    weight: dict[int, np.ndarray],
    stop: Callable[[], bool] | None,
    observe: Callable[[Mapping[int, np.ndarray], Mapping[int, np.ndarray]], None] | None,
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray], dict[int, np.ndarray]]:
    """The best slopes, split multipliers and cut multipliers met, starting from those given; all float32."""
    count = len(next(iter(rows.coefficients.values())))
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
        reached = pass_back(
            sketch, rows, slopes=alpha, multipliers=beta, cuts=cuts, cut_multipliers=weight, sound=False, keep=True
        )
        value = minimum_over_box(sketch, reached, rows.samples, sound=False)
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
        values = relaxed_values(sketch, reached, rows.samples, alpha)
        sources = {k: values[sketch.network.relu_source(k)] for k in alpha}
        met = [k for k in alpha if k in reached.passed]
        slope_ascent.ascend({k: np.where(free[k], _bend(reached, k) * sources[k], 0) for k in met}, scale)
        answers = {k: _respond(sketch, k, reached, rows.samples, sources[k], alpha) for k in cuts if k in reached.met}
        if observe is not None:
            observe(dict(enumerate(values)), {k: a for k, (_, a) in answers.items()})
        units = units or {k: _size(c) for k, c in reached.passed.items()}
        excess = {k: _excess(cuts[k], y, a, values[cuts[k].source]) for k, (y, a) in answers.items()}
        weight_ascent.ascend(excess, scale, {k: units[k].reshape(count, 1) for k in excess})
        beta_ascent.ascend({k: np.abs(sign[k]) * -sources[k] for k in beta if k in units}, scale, units)
        scale *= search.decay
    return best_alpha, best_beta, best_weight


def _size(coefficients: np.ndarray) -> np.ndarray:
    """The mean size of each row's coefficients (R, *shape), such that it broadcasts to them."""
    return np.abs(coefficients).mean(axis=tuple(range(1, coefficients.ndim)), keepdims=True)


def _bend(rows: InputRows, node: int) -> np.ndarray:
    """The derivative of a line's slope by the choice between 0 and 1 that it stands for, (R, *shape)."""
    if node not in rows.met:
        return np.maximum(rows.passed[node], 0)
    met = rows.met[node]
    return np.where(met.kink, met.right - met.left, 0).reshape(rows.passed[node].shape)


def _excess(cuts: Cuts, y: np.ndarray, a: np.ndarray, z: np.ndarray) -> np.ndarray:
    """By how much points (R, ...) violate the cuts, (R, T)."""
    return cuts.of_units(y) - cuts.at(z.reshape(len(y), -1)) - cuts.step * cuts.of_units(a) - cuts.limit


def evaluate_rows(
    relaxed: Relaxed,
    rows: Rows,
    slopes: dict[int, np.ndarray],
    multipliers: dict[int, np.ndarray],
    cuts: Mapping[int, Cuts] | None = None,
    cut_multipliers: Mapping[int, np.ndarray] | None = None,
) -> Optimum:
    """The sound float64 bound of rows with given slopes and multipliers, and what the relaxed minimizer looks like."""
    wide = {k: v.astype(np.float64) for k, v in slopes.items()}
    factors = {k: v.astype(np.float64) for k, v in multipliers.items()}
    given = dict(cut_multipliers or {})
    weights = {k: v.astype(np.float64) for k, v in given.items()}
    reached = pass_back(relaxed, rows, slopes=wide, multipliers=factors, cuts=cuts, cut_multipliers=weights, keep=True)
    lower = minimum_over_box(relaxed, reached, rows.samples)
    values = relaxed_values(relaxed, reached, rows.samples, wide)
    sources = {k: values[relaxed.network.relu_source(k)] for k in reached.passed}
    own = {k: values[k] for k in reached.passed if k < len(values)}
    return Optimum(lower, slopes, multipliers, values[0], reached, sources, given, own)


def _unstable(relaxed: Relaxed, node: int) -> np.ndarray:
    return np.asarray(relaxed.bounds.unstable(node))


def optimized_crown(
    network: Network,
    lower: np.ndarray,
    upper: np.ndarray,
    known: Known | None = None,
    search: Search | None = None,
    stop: Callable[[], bool] | None = None,
    region: Region | None = None,
) -> Bounds:
    """Bounds by optimized CROWN [Xu et al. 2021], with slopes of its own for every unstable unit and side.

    Same shape of answer as `crown`, which is what it starts from; sound in exact arithmetic.
    """
    search = search or Search()

    def bounder(relaxed: Relaxed, node: int, samples: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return optimized_units(relaxed, node, samples, units, search, stop)

    return tighten_by_layer(network, lower, upper, bounder, known, region, stop or never)


def optimized_units(
    relaxed: Relaxed,
    node: int,
    samples: np.ndarray,
    units: np.ndarray,
    search: Search,
    stop: Callable[[], bool] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Optimized bounds (R,), (R,) of single entries `units` of `node`.

    The upper side first: where it already proves a unit inactive, the lower side is not worked for [Tjeng et al. 2019].
    """
    source = relaxed.bounds
    single = source.batch == 1
    lows = source.lower[node].reshape(source.batch, -1)[samples, units].copy()
    highs = source.upper[node].reshape(source.batch, -1)[samples, units].copy()
    sketch = Relaxed(source.astype(np.float32))
    for part in row_chunks(relaxed.network, node, len(units), passes=3):  # in float64 after `stop`, and points forward
        if stop is not None and stop():
            break
        boxes = None if single else samples[part]
        rows = unit_rows(relaxed.network, node, units[part], boxes, source.lower[0])
        highs[part] = np.minimum(
            highs[part], -optimize_rows(relaxed, rows.negated(), search, sketch=sketch, stop=stop).lower
        )
        open_ = np.flatnonzero(highs[part] > 0)
        if len(open_):
            some = rows.take(open_)
            found = optimize_rows(relaxed, some, search, sketch=sketch, stop=stop).lower
            index = np.arange(part.start, part.stop)[open_]
            lows[index] = np.maximum(lows[index], found)
    return lows, highs
