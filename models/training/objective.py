"""The loss of one batch: attacked logits, bounds and regularizers, as the options mix them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from mipverify.models.training.options import TrainingOptions
from mipverify.models.training.quick import attack_twin
from mipverify.presolve import Bounds, interval
from torch import Tensor, nn
from torch.nn import functional

from mipverify.network import Network


@dataclass
class Sums:
    """Running sums of what is shown while training: weighted by batch size, kept as tensors until they are read."""

    count: int = 0
    values: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, value: Tensor | float, weight: int) -> None:
        """Add one batch's mean."""
        number = float(value.detach()) if isinstance(value, Tensor) else float(value)
        self.values[name] = self.values.get(name, 0.0) + number * weight

    def means(self) -> dict[str, float]:
        """Means over all samples so far."""
        return {name: value / max(self.count, 1) for name, value in self.values.items()}


class Objective:
    """The loss as `TrainingOptions` states it, for one module."""

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...], options: TrainingOptions):
        self.module = module
        self.options = options
        self.network = Network.from_torch(module, input_shape)
        self._twin = attack_twin(module)

    def __call__(self, x: Tensor, y: Tensor, progress: float, sums: Sums) -> Tensor:
        """Loss of a batch x (B, *input_shape), y (B,); `progress` (0 to 1) is how much of the training is over."""
        options = self.options
        grown = self.radius_share(progress)
        eps = options.eps * grown
        attacked = attack(self._twin, x, y, eps, options.attack_steps, options.attack_step * eps)
        logits = self.module(attacked)
        loss = functional.cross_entropy(logits, y)
        count = len(x)
        sums.count += count
        sums.add("attacked loss", loss, count)
        sums.add("attacked accuracy", (logits.argmax(1) == y).float().mean(), count)
        if options.certified or options.stability:
            radius = eps * options.radius_factor
            bounds = interval(self.network, (x - radius).clamp(0, 1), (x + radius).clamp(0, 1))
            if options.certified:
                certified = functional.cross_entropy(worst_logits(bounds, y), y)
                share = options.certified * grown
                loss = (1 - share) * loss + share * certified
                sums.add("certified loss", certified, count)
            if options.stability:
                stability = stability_loss(bounds)
                loss = loss + options.stability * stability
                sums.add("stability loss", stability, count)
        if options.sparsity:
            size = weight_sizes(self.module)
            loss = loss + options.sparsity * size
            sums.add("l1", size, count)
        sums.add("loss", loss, count)
        return loss

    def radius_share(self, progress: float) -> float:
        """How much of the radius is reached: 0 before the ramp, 1 after it."""
        begin, end = self.options.ramp
        if progress >= end:
            return 1.0
        return max(0.0, (progress - begin) / (end - begin))


def attack(module: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, step: float) -> Tensor:
    """Projected gradient ascent from a random point."""
    if steps == 0 or eps == 0:
        return x
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    point = low + (high - low) * torch.rand_like(x)
    for _ in range(steps):
        point = point.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(module(point), y, reduction="sum"), point)
        point = torch.minimum(torch.maximum(point.detach() + step * gradient.sign(), low), high)
    return point.detach()


def worst_logits(bounds: Bounds, y: Tensor) -> Tensor:
    lower, upper = bounds.lower[-1].flatten(1), bounds.upper[-1].flatten(1)
    return torch.where(functional.one_hot(y, lower.shape[1]).bool(), lower, upper)


def stability_loss(bounds: Bounds) -> Tensor:
    total = torch.zeros(())
    for node in bounds.network.preactivations:
        total = total - torch.tanh(1 + bounds.lower[node] * bounds.upper[node]).flatten(1).sum(1).mean()
    return total


def weight_sizes(module: nn.Module) -> Tensor:
    return torch.stack([p.abs().sum() for p in module.parameters() if p.ndim > 1]).sum()
