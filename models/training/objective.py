"""The loss of one batch: attacked logits, bounds and regularizers, as the options mix them."""

from __future__ import annotations

from typing import cast

from mipverify.models.adversarial import pgd_attack
from mipverify.models.certified import Certificate, margins_from
from mipverify.models.differentiable import Method, TrainingBounds, input_box, training_bounds
from mipverify.models.quick import attack_twin, quick_twin
from mipverify.models.sparsity import weight_sparsity
from mipverify.models.stability import stability_terms
from mipverify.models.traced import Traced
from mipverify.models.training.options import TrainingOptions
from torch import Tensor, nn
from torch.nn import functional

from mipverify.network.torch_import import apply_pruning


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
        self._traced = Traced(module, input_shape)
        self._twin, self._quick = attack_twin(module), quick_twin(module)

    def __call__(self, x: Tensor, y: Tensor, progress: float, sums: Sums) -> Tensor:
        """Loss of a batch x (B, *input_shape), y (B,); `progress` (0 to 1) is how much of the training is over."""
        options = self.options
        apply_pruning(self.module)  # the twins' layers are called without the hook that does it
        eps = options.eps * radius_share(options.ramp, progress)
        attacked = x
        if options.attack_steps and eps:
            step = options.attack_step * eps
            attacked = pgd_attack(self._twin, x, y, eps, steps=options.attack_steps, step_size=step)
        logits = self._quick(attacked)
        loss = functional.cross_entropy(logits, y)
        count = len(x)
        sums.count += count
        sums.add("attacked loss", loss, count)
        sums.add("attacked accuracy", (logits.argmax(1) == y).float().mean(), count)
        if options.certified or options.stability:
            part = max(1, round(options.bounded_share * count))  # batches are in random order: the first are a sample
            found = self._bounds(x[:part], eps * options.radius_factor)
            if options.certified:
                margins = margins_from(found.bounds, y[:part], cast(Certificate, options.certified_bounds))
                certified = functional.cross_entropy(-margins, y[:part])
                loss = (1 - options.certified) * loss + options.certified * certified
                sums.add("certified loss", certified, count)
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

    def _bounds(self, x: Tensor, radius: float) -> TrainingBounds:
        lower, upper = input_box(x, radius)
        network = self._traced.network_at(x)
        return training_bounds(network, lower, upper, cast(Method, self.options.stability_bounds), rows="auto")


def radius_share(ramp: tuple[float, float], progress: float) -> float:
    """How much of the radius is reached: 0 before the ramp, 1 after it."""
    begin, end = ramp
    return 1.0 if progress >= end else max(0.0, (progress - begin) / (end - begin))
