"""The loss of one batch: attacked logits, bounds and regularizers, as the options mix them."""

from __future__ import annotations

from typing import cast

import torch
from mipverify.models.adversarial import pgd_attack
from mipverify.models.certified import Certificate, margins_from
from mipverify.models.differentiable import Method, TrainingBounds, input_box
from mipverify.models.quick import attack_twin, quick_twin
from mipverify.models.schedules import Shape, growth
from mipverify.models.small_boxes import small_box_centers
from mipverify.models.sparsity import weight_sparsity
from mipverify.models.stability import stability_terms
from mipverify.models.traced import StatisticsOf, Traced, bounds_of, logits_of
from mipverify.models.training.options import TrainingOptions
from mipverify.models.warmup import warmup_terms
from torch import Tensor, nn
from torch.nn import functional

from mipverify.network import Network
from mipverify.network.torch_import import recompute_weights


class Sums:
    """Means over an epoch of what is shown while training."""

    def __init__(self) -> None:
        self.count = 0
        self._values: dict[str, float] = {}

    def add(self, name: str, value: Tensor | float, weight: int) -> None:
        """Add one batch's mean."""
        number = float(value.detach()) if isinstance(value, Tensor) else float(value)
        self._values[name] = self._values.get(name, 0.0) + number * weight

    def means(self) -> dict[str, float]:
        """Means over all samples so far."""
        return {name: value / max(self.count, 1) for name, value in self._values.items()}


class Objective:
    """The loss as `TrainingOptions` states it, for one module; a list of what it adds up stands there.

    Bounds are computed once for each batch and serve both the certified loss and the RS loss.
    """

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...], options: TrainingOptions):
        self.module = module
        self.options = options
        self._traced = Traced(module, input_shape, statistics=cast(StatisticsOf, options.statistics))
        self._twin, self._quick = attack_twin(module), quick_twin(module)

    def __call__(self, x: Tensor, y: Tensor, progress: float, sums: Sums) -> Tensor:
        """Loss of a batch x (B, *input_shape), y (B,); `progress` (0 to 1) is how much of the training is over."""
        options = self.options
        recompute_weights(self.module)  # the twins' layers are called without the hook that does it
        reached = radius_share(options.ramp, progress, cast(Shape, options.ramp_shape))
        eps = options.eps * options.radius_factor * reached
        share = options.certified * (reached if options.certified_grows else 1.0)
        count = len(x)
        part = max(1, round(options.bounded_share * count))  # batches are in random order: the first are a sample
        found: TrainingBounds | None = None
        if options.certified or options.stability:
            found = self._bounds(*self._boxes(x[:part], y[:part], eps))
        attackable, scored = self._twin, self._quick
        if found is not None and self._traced.centered:
            attackable = scored = Bounded(found.bounds.network)
        attacked = x
        if options.attack_steps and eps and share < 1:
            reach = options.attack_factor * eps
            step = options.attack_step * reach
            attacked = pgd_attack(attackable, x, y, reach, steps=options.attack_steps, step_size=step)
        sums.count += count
        loss = x.new_zeros(())
        if share < 1 or not self._traced.centered:  # whose bounds have moved the running statistics already
            with torch.set_grad_enabled(share < 1):  # the bounded loss alone leaves it to the record
                logits = scored(attacked)
                loss = functional.cross_entropy(logits, y)
            sums.add("attacked loss", loss, count)
            sums.add("attacked accuracy", (logits.argmax(1) == y).float().mean(), count)
        if found is not None:
            if options.certified:
                bounds = cast(Certificate, options.certified_bounds)
                margins = margins_from(found.bounds, y[:part], bounds, crown_share=1 - reached)
                certified = functional.cross_entropy(-margins, y[:part])
                loss = (1 - share) * loss + share * certified
                sums.add("certified loss", certified, count)
                if options.small_box == 1:  # smaller boxes prove nothing about the ball
                    proven = (margins > 0).sum(1) == margins.shape[1] - 1
                    sums.add("certified accuracy", proven.float().mean(), count)
            if options.warmup and reached < 1:
                warmup = warmup_terms(found.bounds)
                loss = loss + options.warmup * (1 - reached) * warmup
                sums.add("warm-up loss", warmup, count)
            if options.stability:
                stability = stability_terms(found).mean()
                loss = loss + options.stability * stability
                sums.add("stability loss", stability, count)
        if options.sparsity:
            size = weight_sparsity(self._traced)
            loss = loss + options.sparsity * size
            sums.add("l1", size, count)
        sums.add("loss", loss, count)
        return loss

    def _boxes(self, x: Tensor, y: Tensor, radius: float) -> tuple[Tensor, float]:
        """Centres and radius of what is bounded."""
        options = self.options
        if options.small_box == 1:
            return x, radius
        step = options.attack_step * (1 - options.small_box) * radius
        centers = small_box_centers(
            self._twin, x, y, radius, options.small_box, steps=options.attack_steps, step_size=step
        )
        return centers, options.small_box * radius

    def _bounds(self, x: Tensor, radius: float) -> TrainingBounds:
        method = cast(Method, self.options.stability_bounds)
        return bounds_of(self._traced, x, *input_box(x, radius), method, rows="auto")


class Bounded(nn.Module):
    """The network of a step's bounds as a module, to be attacked."""

    def __init__(self, network: Network):
        super().__init__()
        self._network = [network]  # in a list: the module that it was made of is not registered

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) at x (B, *input_shape)."""
        return logits_of(self._network[0], x)


def radius_share(ramp: tuple[float, float], progress: float, shape: Shape = "linear") -> float:
    """How much of the radius is reached: 0 before the ramp, 1 after it."""
    begin, end = ramp
    return 1.0 if progress >= end else growth(max(0.0, (progress - begin) / (end - begin)), shape)
