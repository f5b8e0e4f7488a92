"""Certified training: the cross-entropy of bounds on the logits, alone or mixed with that of attacked inputs."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from mipverify.models.arguments import Domain, class_labels, require_classes, whole
from mipverify.models.differentiable import input_box
from mipverify.models.precision import in_full_precision
from mipverify.models.stability import reduced
from mipverify.models.traced import Model, bounds_of, logits_of
from torch import Tensor
from torch.nn import functional

from mipverify.errors import InputError
from mipverify.network import Affine, Network
from mipverify.network.operators import parameter_like
from mipverify.network.reverse import through_terms
from mipverify.proof.backward import estimate_backward, estimate_minimum
from mipverify.proof.bounds import Intervals
from mipverify.proof.rounding import row_dot
from mipverify.proof.rows import Rows, functionals

Certificate: TypeAlias = Literal["interval", "crown"]
Mixture: TypeAlias = Literal["loss", "logits", "product"]


def certified_loss(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    bounds: Certificate = "interval",
    attacked: Tensor | None = None,
    mixture: Mixture | None = None,
    alpha: float = 1.0,
    crown_share: float = 1.0,
    domain: Domain = (0.0, 1.0),
    input_shape: tuple[int, ...] | None = None,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """Cross-entropy of the worst logits that bounds allow, mixed with that of attacked inputs if asked for.

    With m_j(x) a lower bound of z_y - z_j over the ball (see `certified_margins`), the logits v_j = -m_j, v_y = 0 give
    a bound of the loss over the ball [Gowal et al. 2018, arXiv 1810.12715, section 3; Zhang et al. 2020, arXiv
    1906.06316, for bounds="crown"]. With `attacked` points x' (B, *shape) in the ball, d_j = z_j(x') - z_y(x'), and
    L(v) = log sum exp v [De Palma et al. 2024, arXiv 2305.13991, section 4], alpha from 0 (attack) to 1 (bounds):

    - mixture="loss" (MTL-IBP): (1 - alpha) L(d) + alpha L(v)
    - mixture="logits" (CC-IBP): L((1 - alpha) d + alpha v)
    - mixture="product" (Exp-IBP): L(d)^(1 - alpha) L(v)^alpha

    y: labels (B,). crown_share: with bounds="crown", the share of CROWN's margins against those of interval arithmetic
    in their convex combination (CROWN-IBP lowers it from 1 to 0 while the radius grows). reduction: "mean" over the
    batch or "none" (B,). Raises InputError where a mixture has no attacked points, or attacked points no mixture.
    """
    if (mixture is None) != (attacked is None):
        raise InputError("a mixture needs attacked points, and attacked points a mixture")
    if mixture not in (None, "loss", "logits", "product"):
        raise InputError(f"mixture {mixture!r}: 'loss', 'logits' or 'product' is needed")
    if not 0 <= alpha <= 1 or not 0 <= crown_share <= 1:
        raise InputError("alpha and crown_share lie between 0 and 1")
    y = class_labels(y, len(whole(x)))
    found = _bounded(model, x, eps, bounds, domain, input_shape)
    worst = -margins_from(found, y, bounds, crown_share)
    if attacked is None:
        return reduced(functional.cross_entropy(worst, y, reduction="none"), reduction)
    logits = whole(logits_of(model, attacked, found.network))
    differences = logits - logits.gather(1, y[:, None])
    if mixture == "logits":
        mixed = (1 - alpha) * differences + alpha * worst
        return reduced(functional.cross_entropy(mixed, y, reduction="none"), reduction)
    attack, bound = (functional.cross_entropy(v, y, reduction="none") for v in (differences, worst))
    if mixture == "loss":
        return reduced((1 - alpha) * attack + alpha * bound, reduction)
    tiny = torch.finfo(attack.dtype).tiny  # the loss of a sample may round to zero, where the logarithm has no slope
    product = torch.exp((1 - alpha) * attack.clamp(min=tiny).log() + alpha * bound.clamp(min=tiny).log())
    return reduced(product, reduction)


@in_full_precision
def certified_margins(
    model: Model,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    bounds: Certificate = "interval",
    crown_share: float = 1.0,
    domain: Domain = (0.0, 1.0),
    input_shape: tuple[int, ...] | None = None,
) -> Tensor:
    """Lower bounds (B, classes) of z_y - z_j over the ball of radius eps around x, clipped to `domain`; 0 for j = y.

    Where all others are positive, the sample is robust (to rounding: a proof is the verifier's). "interval": interval
    arithmetic up to the last layer, which is merged with the differences of logits ("elision" [Gowal et al. 2018,
    section 3]). "crown": these rows passed back to the input by CROWN over interval bounds of the hidden units
    (CROWN-IBP [Zhang et al. 2020, section 3]); crown_share as in `certified_loss`.
    """
    return margins_from(_bounded(model, x, eps, bounds, domain, input_shape), y, bounds, crown_share)


@in_full_precision
def _bounded(
    model: Model,
    x: Tensor,
    eps: float | Tensor,
    bounds: Certificate,
    domain: Domain,
    input_shape: tuple[int, ...] | None,
) -> Intervals:
    """Interval bounds over the ball, for margins by `bounds`."""
    if bounds not in get_args(Certificate):
        raise InputError(f"bounds {bounds!r}: 'interval' or 'crown' is needed")
    return bounds_of(model, x, *input_box(x, eps, domain), input_shape=input_shape).bounds


@in_full_precision
def margins_from(found: Intervals, y: Tensor, bounds: Certificate = "interval", crown_share: float = 1.0) -> Tensor:
    """`certified_margins` from bounds of the hidden units that are already computed."""
    y = class_labels(y, len(found.lower[0]))
    rows, targets = _difference_rows(found.network, y, found.lower[0])
    margins: Tensor | None = None
    if bounds == "interval" or crown_share < 1:
        margins = _by_interval(found, rows)
    if bounds == "crown" and crown_share > 0:
        tight = estimate_minimum(found, estimate_backward(found, rows), rows.samples)
        margins = tight if margins is None else (1 - crown_share) * margins + crown_share * tight
    assert margins is not None
    full = margins.new_zeros(len(y), found.network.output_size)
    return full.scatter(1, targets, margins.reshape(len(y), -1))


def _difference_rows(network: Network, y: Tensor, like: Tensor) -> tuple[Rows, Tensor]:
    """Rows z_y - z_j for all j other than y, sample after sample, and these j (B, classes - 1)."""
    classes = network.output_size
    require_classes(y, classes)
    others = torch.arange(classes - 1, device=y.device).expand(len(y), -1)
    targets = others + (others >= y[:, None])
    one_hot = torch.eye(classes, dtype=like.dtype, device=like.device)
    coefficients = (one_hot[y][:, None] - one_hot[targets]).reshape(-1, *network.output_shape)
    samples = torch.arange(len(y), device=y.device).repeat_interleave(classes - 1)
    return functionals({network.output: coefficients}, samples), targets  # type: ignore[arg-type]  # torch indexes as well


def _by_interval(found: Intervals, rows: Rows) -> Tensor:
    """The minimum (R,) of rows over the last layer's output, by intervals of what that layer reads."""
    network = found.network
    node = network.nodes[network.output]
    pending = dict(rows.coefficients)
    total = pending[network.output].new_zeros(len(pending[network.output]))
    if isinstance(node, Affine):
        a = pending.pop(network.output)
        if node.bias is not None:
            total = total + row_dot(a, parameter_like(node.bias, a)[None])
        for source, back in through_terms(network, node, a):
            pending[source] = pending[source] + back if source in pending else back
    for source, a in pending.items():
        positive = a.clamp(min=0)
        total = total + row_dot(positive, found.lower[source][rows.samples])
        total = total + row_dot(a - positive, found.upper[source][rows.samples])
    return total
