"""The ReLU stability loss: a penalty on units whose sign the verifier will not be able to decide."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from mipverify.models.arguments import Domain
from mipverify.models.differentiable import Method, RowCount, TrainingBounds, input_box
from mipverify.models.precision import in_full_precision
from mipverify.models.traced import Model, bounds_of
from torch import Tensor

from mipverify.errors import InputError

Reduction: TypeAlias = Literal["mean", "none", "unit"]


@in_full_precision
def relu_stability_loss(
    model: Model,
    x: Tensor,
    eps: float | Tensor,
    *,
    bounds: Method = "interval",
    domain: Domain = (0.0, 1.0),
    input_shape: tuple[int, ...] | None = None,
    rows: RowCount = "auto",
    generator: torch.Generator | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """sum over all hidden ReLUs of -tanh(1 + l u) [Xiao et al. 2019, arXiv 1809.03008, section 3.3].

    l, u: bounds of the ReLU's argument over the l_inf ball of radius eps around x, clipped to `domain`. A unit is
    unstable where l u < 0; the loss of one lies between -1 (stable) and 1 (unstable).

    Scale: *summed* over units, every position of a convolution being one, and averaged over the batch
    (reduction="mean"); reduction="none" gives the sums (B,). The paper's weight for it is 1e-4 to 2e-3.
    reduction="unit": the mean over units and batch, between -1 and 1, so that a weight carries over between
    architectures: that of the sum, times the number of units (the paper's network for MNIST has 4,804: 0.5 to 10).

    model: a torch module (traced in every call: pass a `Traced` in a loop) or a network; gradients flow into its
    parameters. x: (B, *shape), shape being input_shape unless that is given. bounds, rows, generator: see
    `training_bounds`. Unless rows is None, improved interval arithmetic and CROWN bound a random sample of the units
    that are unstable under interval arithmetic, each of which then counts for several: an estimate of the sum without
    bias, but for the bounds that deeper layers start from.
    Raises InputError for a layer that cannot be imported, a negative radius, or unknown bounds.
    """
    lower, upper = input_box(x, eps, domain)
    found = bounds_of(model, x, lower, upper, bounds, input_shape=input_shape, rows=rows, generator=generator)
    network = found.bounds.network
    terms = stability_terms(found)
    if reduction == "unit":
        return terms.mean() / max(1, sum(math.prod(network.nodes[relu].shape) for relu in network.relus))
    return reduced(terms, reduction)


@in_full_precision
def stability_terms(found: TrainingBounds) -> Tensor:
    """The sum of -tanh(1 + l u) over the hidden units, for each box (B,), from bounds already computed."""
    network = found.bounds.network
    like = found.bounds.lower[0]
    total = like.new_zeros(like.shape[0])
    for relu in network.relus:
        source = network.relu_source(relu)
        terms = -torch.tanh(1 + found.bounds.lower[source] * found.bounds.upper[source])
        if source in found.weights:
            terms = terms * found.weights[source]
        total = total + terms.flatten(1).sum(1)
    return total


def reduced(values: Tensor, reduction: str) -> Tensor:
    """Values (B,) as asked for: their mean, or as they are."""
    if reduction not in ("mean", "none"):
        raise InputError(f"reduction {reduction!r}: 'mean' or 'none' is needed ('unit' for the stability loss)")
    return values.mean() if reduction == "mean" else values
