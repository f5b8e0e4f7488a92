"""Bounds that are differentiable in the weights: interval arithmetic, improved interval arithmetic and CROWN.

The steps are those of verification (`mipverify.presolve`), run on torch tensors. Rows are formed for units that
interval arithmetic leaves unstable, a chunk at a time, and recomputed for the backward pass: memory grows with the
width of a layer, not with its square.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from mipverify.models.arguments import Domain, limits, require_domain, require_radius, whole
from mipverify.models.interval import estimate_affine
from mipverify.models.precision import in_full_precision
from mipverify.models.windows import parallel_bounds, parallel_window_bounds, row_work, window_bounds
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mipverify.errors import InputError
from mipverify.network import Input, Network, Relu, sources
from mipverify.proof.backward import estimate_backward, estimate_minimum
from mipverify.proof.bounds import Intervals
from mipverify.proof.patches import convolution
from mipverify.proof.relaxation import Relaxation, relax
from mipverify.proof.rows import Rows, unit_rows

Method: TypeAlias = Literal["interval", "improved_interval", "crown"]

RowCount: TypeAlias = int | Literal["auto"] | None

MOST_ROWS = 128  # of a layer, if they are counted by what they cost
ROW_SHARE = 0.9  # what all rows may cost, in passes of the whole batch through the network
FREE_WORK = 2**24  # multiplications that a layer's rows may cost in any case
CHUNK_BYTES = 32 * 2**20  # of one array of coefficients in one pass back


@dataclass(frozen=True, eq=False)
class TrainingBounds:
    """Bounds of every node, and how much each pre-activation counts in a sum over units.

    weights: for some pre-activation nodes an array (B, *shape), where only some of the unstable units were bounded by
    rows: 1 for stable units, 0 for those left out, and what makes up for them on the others. Missing nodes: all 1.
    """

    bounds: Intervals
    weights: dict[int, Tensor]


def input_box(x: Tensor, eps: float | Tensor, domain: Domain = (0.0, 1.0)) -> tuple[Tensor, Tensor]:
    """The l_inf ball of radius eps around x (B, *shape), clipped to the domain: lower and upper (B, *shape).

    eps and each limit of the domain: a number, or a tensor that broadcasts to x, (channels, 1, 1) for one of each
    channel. Raises InputError where x lies outside of the domain, for clipping
    would make boxes that do not hold it, or where they do not fit. Half precision holds no bounds: such x are taken as
    float32.
    """
    x = whole(x)
    require_radius(eps, x)
    require_domain(x, domain)
    lower, upper = x - eps, x + eps
    if domain is None:
        return lower, upper
    low, high = limits(domain, x)
    return lower.clamp(low, high), upper.clamp(low, high)


@in_full_precision
def training_bounds(
    network: Network,
    lower: Tensor,
    upper: Tensor,
    method: Method = "interval",
    *,
    rows: RowCount = None,
    generator: torch.Generator | None = None,
) -> TrainingBounds:
    """Bounds of every node over the boxes (B, *input_shape), differentiable in the network's weights.

    - "interval": layer by layer [Tjeng et al. 2019, section 4.2].
    - "improved_interval": units proven active (l >= 0) are composed with the weights before them, down to the input;
      the others are intervals [Xiao et al. 2019, appendix]. In rows: relu(x) = x where l >= 0, 0 <= relu(x) <= u else.
    - "crown": the relaxation of CROWN [Zhang et al. 2018], as in `presolve.crown`.

    The last two start from interval arithmetic and form rows for the units that it leaves unstable, as verification
    does; bounds are the tighter of both. rows: at most so many (sample, unit) pairs in each layer, chosen at random
    with `generator`; the others keep their interval, see `TrainingBounds.weights`. "auto": as many as cost about as
    much as the batch itself, `MOST_ROWS` at most, so that the cost of a step does not grow faster than the network.
    Without the rounding terms of verification, whose gradients would double the cost for nothing: bounds are those of
    verification to rounding.
    """
    if method not in get_args(Method):
        raise InputError(f"bounds {method!r}: one of {', '.join(get_args(Method))} is needed")
    if rows not in (None, "auto") and not (isinstance(rows, int) and rows >= 1):
        raise InputError(f"rows {rows!r}: at least one is needed, 'auto', or None for all")
    tightened = [i for i in network.preactivations if method != "interval" and set(sources(network.nodes[i])) != {0}]
    lows: list[Tensor] = []
    highs: list[Tensor] = []
    weights: dict[int, Tensor] = {}
    lines: dict[int, Relaxation] = {}
    for index, node in enumerate(network.nodes):
        if isinstance(node, Input):
            low, high = lower.reshape(-1, *node.shape), upper.reshape(-1, *node.shape)
        elif isinstance(node, Relu):
            low, high = lows[node.source].clamp(min=0), highs[node.source].clamp(min=0)
            if method != "interval":
                lines[index] = _line(method, lows[node.source], highs[node.source])
        else:
            low, high = estimate_affine(node, lows, highs)
            if index in tightened:
                relaxed = relaxed_so_far(network, lows[0], highs[0], lines)
                most = _affordable(network, index, method, len(low), len(tightened)) if rows == "auto" else rows
                low, high, weight = _tightened(relaxed, index, low, high, method, most, generator)
                if weight is not None:
                    weights[index] = weight
        lows.append(low)
        highs.append(high)
    return TrainingBounds(Intervals(network, tuple(lows), tuple(highs)), weights)


def _affordable(network: Network, node: int, method: Method, batch: int, layers: int) -> int:
    """How many rows of a node a step can afford; each side of CROWN is a row of its own."""
    sides = 2 if method == "crown" else 1
    work = max(FREE_WORK, 2 * ROW_SHARE * batch * network.work[-1] / (sides * layers))
    return max(1, min(MOST_ROWS, int(work / row_work(network, node))))


def relaxed_so_far(network: Network, lower: Tensor, upper: Tensor, lines: dict[int, Relaxation]) -> Intervals:
    """A relaxation from the input boxes and the lines of some ReLUs: enough to pass rows back through those."""
    return _Relaxed(network, (lower,), (upper,), lines)


class _Relaxed(Intervals):
    """Intervals of the input alone, with lines that were made elsewhere."""

    def __init__(self, network: Network, lower: tuple[Tensor], upper: tuple[Tensor], lines: dict[int, Relaxation]):
        super().__init__(network, lower, upper)
        self.__dict__["lines"] = lines


def _line(method: Method, lower: Tensor, upper: Tensor) -> Relaxation:
    if method == "crown":
        return relax(lower, upper)
    active = (lower >= 0).to(lower.dtype)
    return Relaxation(active, active, (1 - active) * upper.clamp(min=0))


def _tightened(
    relaxed: Intervals,
    node: int,
    low: Tensor,
    high: Tensor,
    method: Method,
    rows: int | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The bounds (B, *shape) of a node with its unstable units bounded by rows, and their weights."""
    shape = low.shape
    low, high = low.reshape(shape[0], -1), high.reshape(shape[0], -1)
    unstable = (low < 0) & (high > 0)
    samples, units = unstable.nonzero(as_tuple=True)
    count, weight = len(samples), None
    if rows is not None and count > rows:
        chosen = torch.randperm(count, generator=generator)[:rows].sort().values.to(samples.device)
        samples, units = samples[chosen], units[chosen]
        weight = (~unstable).to(low.dtype).index_put((samples, units), low.new_tensor(count / rows)).reshape(shape)
    if len(samples):
        rowwise = _both_sides if method == "improved_interval" else _each_side
        lower, upper = in_chunks(rowwise, relaxed, node, samples, units)
        low = low.index_put((samples, units), torch.maximum(low[samples, units], lower))
        high = high.index_put((samples, units), torch.minimum(high[samples, units], upper))
    return low.reshape(shape), high.reshape(shape), weight


RowBounder: TypeAlias = Callable[[Intervals, int, Tensor, Tensor], tuple[Tensor, Tensor]]


def in_chunks(
    bounder: RowBounder, relaxed: Intervals, node: int, samples: Tensor, units: Tensor
) -> tuple[Tensor, Tensor]:
    """Bounds (R,), (R,) of entries of a node, a chunk at a time; where there are several, each is recomputed in the
    backward pass, so that the coefficients of only one are held at any time."""
    like, conv = relaxed.lower[0], convolution(relaxed.network, node)
    widest = max(math.prod(n.shape) for n in relaxed.network.nodes[: node + 1])
    if conv is not None:
        widest = min(widest, 4 * math.prod(conv.weight.shape[1:]))  # windows stay within half of a tensor
    size = max(1, CHUNK_BYTES // (like.element_size() * widest))
    if len(samples) <= size:
        return bounder(relaxed, node, samples, units)
    parts = [
        checkpoint(bounder, relaxed, node, a, b, use_reentrant=False, preserve_rng_state=False)
        for a, b in zip(samples.split(size), units.split(size), strict=True)
    ]
    return torch.cat([low for low, _ in parts]), torch.cat([high for _, high in parts])


def _each_side(relaxed: Intervals, node: int, samples: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """Any relaxation: the two sides are two rows."""
    if convolution(relaxed.network, node) is not None:
        return window_bounds(relaxed, node, samples, units)
    rows = _rows(relaxed, node, samples, units)
    low = estimate_minimum(relaxed, estimate_backward(relaxed, rows), rows.samples)
    opposite = estimate_backward(relaxed, rows.negated())
    return low, -estimate_minimum(relaxed, opposite, rows.samples)


def _both_sides(relaxed: Intervals, node: int, samples: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """Parallel lines: the two sides from one row."""
    if convolution(relaxed.network, node) is not None:
        return parallel_window_bounds(relaxed, node, samples, units)
    return parallel_bounds(relaxed, _rows(relaxed, node, samples, units))


def _rows(relaxed: Intervals, node: int, samples: Tensor, units: Tensor) -> Rows:
    picked: Any = samples  # torch takes tensors where numpy takes arrays
    return unit_rows(relaxed.network, node, units.cpu().numpy(), picked, relaxed.lower[0])
