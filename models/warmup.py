"""Regularizers of interval bounds for the time in which the radius grows."""

from __future__ import annotations

import torch
from mipverify.models.arguments import Domain, require_fraction
from mipverify.models.differentiable import input_box
from mipverify.models.precision import in_full_precision
from mipverify.models.traced import Model, bounds_of
from torch import Tensor

from mipverify.proof.bounds import Intervals

TOLERANCE = 0.5  # tau of Shi et al.
TINY = 1e-12


@in_full_precision
def warmup_regularizer(
    model: Model,
    x: Tensor,
    eps: float | Tensor,
    *,
    tolerance: float = TOLERANCE,
    domain: Domain = (0.0, 1.0),
    input_shape: tuple[int, ...] | None = None,
) -> Tensor:
    """`warmup_terms` of interval bounds over the ball of radius eps around x (B, *shape), a scalar.

    To be weighted by 0.5 (1 - eps / final eps), so that it is gone when the radius has grown [Shi et al. 2021, section
    3.3]. Raises InputError unless the tolerance lies above 0 and at most at 1.
    """
    lower, upper = input_box(x, eps, domain)
    return warmup_terms(bounds_of(model, x, lower, upper, input_shape=input_shape).bounds, tolerance)


def warmup_terms(bounds: Intervals, tolerance: float = TOLERANCE) -> Tensor:
    """Mean over the ReLU layers of tightness, balance of means and balance of variances, each relu(1 - ratio / tau).

    With d the mean width of a layer's pre-activations, d_0 that of the input box, c the centres of the intervals and
    sums over units that are active (l > 0) or inactive (u < 0) for a sample [Shi et al. 2021, arXiv 2103.17268,
    section 3.3]: the ratios are d_0 / d; a = sum_active c / -sum_inactive c, or 1 / a if that is smaller; and
    b = sum_active (c - mean c)^2 / sum_inactive (c - mean c)^2, or 1 / b. A balance is left out of layers in which
    no unit, or only one of the two kinds, is decided: it has no slope there.
    """
    require_fraction(tolerance, "tolerance")
    network = bounds.network
    layers = [network.relu_source(node) for node in network.relus]
    width = (bounds.upper[0] - bounds.lower[0]).mean()
    total = width.new_zeros(())
    for node in layers:
        lower, upper = bounds.lower[node], bounds.upper[node]
        center = 0.5 * (lower + upper)
        total = total + _short(width / (upper - lower).mean().clamp(min=TINY), tolerance)
        active, inactive = lower > 0, upper < 0
        if not bool(active.any()) or not bool(inactive.any()):
            continue
        spread = (center - center.mean()) ** 2
        for one, other in (
            ((center * active).sum(), -(center * inactive).sum()),
            ((spread * active).sum(), (spread * inactive).sum()),
        ):
            least, most = torch.minimum(one, other), torch.maximum(one, other)
            total = total + _short(least / most.clamp(min=TINY), tolerance)
    return total / max(1, len(layers))


def _short(ratio: Tensor, tolerance: float) -> Tensor:
    """By how much, of the tolerance, a ratio falls short of it."""
    return (tolerance - ratio).relu() / tolerance
