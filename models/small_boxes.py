"""Small boxes around attacked points (SABR): what is bounded in place of the whole ball."""

from __future__ import annotations

import torch
from mipverify.models.adversarial import pgd_attack
from mipverify.models.arguments import Domain, require_fraction, require_radius, whole
from torch import Tensor, nn


def small_box_centers(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    share: float,
    *,
    steps: int = 8,
    step_size: float | Tensor | None = None,
    domain: Domain = (0.0, 1.0),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Centres (B, *shape) of boxes of radius share * eps inside the balls of radius eps around x.

    Each is what a PGD attack finds in the ball of radius (1 - share) eps: the loss is bounded where it is large, over
    a box that is small enough for intervals to be close [Mueller et al. 2023, arXiv 2210.04871, section 3]. With
    share = 1 the centres are x. The bounds hold for the small box only: the loss is no bound of that over the ball.
    step_size: 2.5 (1 - share) eps / steps unless given. Raises InputError unless 0 < share <= 1.
    """
    require_fraction(share, "the share of a small box")
    require_radius(eps, whole(x))
    if share == 1:
        return x
    return pgd_attack(
        module, x, y, (1 - share) * eps, steps=steps, step_size=step_size, domain=domain, generator=generator
    )
