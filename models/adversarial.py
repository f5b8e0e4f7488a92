"""Adversarial training: projected gradient descent on batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mipverify.models.arguments import Domain, class_labels, require_classes, scores, whole
from mipverify.models.differentiable import input_box
from torch import Tensor, nn
from torch.nn import functional

from mipverify.errors import InputError


def pgd_attack(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    steps: int = 8,
    step_size: float | Tensor | None = None,
    random_start: bool = True,
    domain: Domain = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Points (B, *shape) of the l_inf balls around x that raise the cross-entropy, by projected gradient descent:
    x' <- clip(x' + step_size sign(grad loss)) [Madry et al. 2018, arXiv 1706.06083, section 2.1].

    y: labels (B,). step_size: 2.5 eps / steps unless given; Xiao et al. 2019 take 8 steps of 0.3 eps. domain: the
    range of valid inputs, or None. The module runs in the mode it is in; its parameters' gradients are left alone.
    """
    x = whole(x)
    lower, upper = input_box(x.detach(), eps, domain)
    y = class_labels(y, len(x))
    _require_steps(steps, step_size, generator)
    step = 2.5 * eps / max(1, steps) if step_size is None else step_size
    point = x.detach()
    if random_start:
        share = torch.rand(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        point = x.detach() + (2 * share - 1) * eps
    point = torch.clamp(point, lower, upper)
    for _ in range(steps):
        point.requires_grad_(True)
        with torch.enable_grad():
            logits = scores(module, point)
            require_classes(y, logits.shape[1])
            loss = functional.cross_entropy(logits, y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, point, allow_unused=True) if loss.requires_grad else (None,)
        if gradient is None:
            raise InputError("the module's output has no gradient with respect to its input: it cannot be attacked")
        point = torch.clamp(point.detach() + step * gradient.sign(), lower, upper)
    return point


def adversarial_loss(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    steps: int = 8,
    step_size: float | Tensor | None = None,
    random_start: bool = True,
    domain: Domain = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mean cross-entropy at attacked points: an estimate of the mean over the batch of max over the ball of the loss
    [Madry et al. 2018, equation 2.1]. Arguments as in `pgd_attack`."""
    attacked = pgd_attack(
        module,
        x,
        y,
        eps,
        steps=steps,
        step_size=step_size,
        random_start=random_start,
        domain=domain,
        generator=generator,
    )
    logits = scores(module, attacked)
    require_classes(y, logits.shape[1])
    return functional.cross_entropy(logits, y.long())


def _require_steps(steps: Any, step_size: Any, generator: Any) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise InputError(f"steps must be a whole number, 0 or more, not {steps!r}")
    if step_size is not None and not isinstance(step_size, (float, int, np.number, Tensor)):
        raise InputError(f"step_size: a number or a tensor is needed, not {type(step_size).__name__}")
    if step_size is not None and not bool(torch.as_tensor(step_size).isfinite().all()):
        raise InputError("step_size must be finite")
    if not isinstance(generator, torch.Generator | None):
        raise InputError(f"generator: a torch.Generator is needed, not {type(generator).__name__}")
