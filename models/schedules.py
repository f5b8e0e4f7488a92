"""Numbers that change while a network is trained: radii and weights that grow, and weights that follow gradients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from mipverify.errors import InputError

Shape: TypeAlias = Literal["linear", "smooth"]


def growth(t: float, shape: Shape) -> float:
    """What is reached after the share t (0 to 1) of a warm-up, as a share of the final value; see `Schedule`."""
    if shape == "linear":
        return t
    knee, power = 0.25, 4
    at_one = knee**power + power * knee ** (power - 1) * (1 - knee)
    return (t**power if t < knee else knee**power + power * knee ** (power - 1) * (t - knee)) / at_one


@dataclass(frozen=True)
class Schedule:
    """A radius or weight at each step: 0 until `start`, growing for `warmup` steps to `final`, then constant.

    shape "linear": in proportion. "smooth": like t^4 over the first quarter of the warm-up, then on along the tangent
    [the schedule of Xu et al. 2020, arXiv 2002.12920].
    """

    final: float
    warmup: int
    start: int = 0
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        if self.final < 0 or self.warmup < 0 or self.start < 0:
            raise InputError(f"{self}: final, warmup and start must be at least 0")
        if self.shape not in ("linear", "smooth"):
            raise InputError(f"schedule {self.shape!r}: 'linear' or 'smooth' is needed")

    def __call__(self, step: int) -> float:
        """The value at a step, counted from 0."""
        if step >= self.start + self.warmup:
            return self.final
        return self.final * growth(max(0, step - self.start) / self.warmup, self.shape)


RadiusSchedule = Schedule  # what it is called where it gives radii


def value_at(scheduled: float | Tensor | Schedule, step: int) -> float | Tensor:
    """A number at a step, be it scheduled or constant."""
    return scheduled(step) if isinstance(scheduled, Schedule) else scheduled


class GradientShare(nn.Module):
    """A weight for a regularizer that keeps its gradient at a share of the whole: `total = balance(loss, penalty, p)`.

    The weight w of loss + w penalty is such that |w grad penalty| = share (|grad loss| + |w grad penalty|), norms being
    those over all parameters. It is measured every so many calls, at the price of one more backward pass of each, and
    averaged; between these it is constant. Its state is part of `state_dict`.

    share: between 0 and 1, exclusive. every: calls from one measurement to the next. smoothing: what an old weight
    counts in the average.
    """

    weight: Tensor
    calls: Tensor

    def __init__(self, share: float, *, every: int = 20, smoothing: float = 0.5):
        super().__init__()
        if not 0 < share < 1 or not 0 <= smoothing < 1 or every < 1:
            raise InputError("share lies between 0 and 1, smoothing from 0 to below 1, and every is at least 1")
        self.share, self.every, self.smoothing = share, every, smoothing
        self.register_buffer("weight", torch.zeros((), dtype=torch.float64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, loss: Tensor, penalty: Tensor, parameters: Iterable[Tensor]) -> Tensor:
        """loss + weight penalty, both of them scalars with a history; the graphs are kept for the backward pass."""
        if int(self.calls) % self.every == 0:
            wanted = [p for p in parameters if p.requires_grad]
            mine, other = (self._norm(value, wanted) for value in (penalty, loss))
            if mine > 0 and other > 0:
                found = self.share / (1 - self.share) * other / mine
                kept = self.smoothing if float(self.weight) else 0.0
                self.weight.fill_(kept * float(self.weight) + (1 - kept) * found)
        self.calls += 1
        return loss + float(self.weight) * penalty

    @staticmethod
    def _norm(value: Tensor, parameters: list[Tensor]) -> float:
        gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        square = sum(float(g.double().square().sum()) for g in gradients if g is not None)
        return float(square) ** 0.5

    def extra_repr(self) -> str:
        return f"share={self.share}, weight={float(self.weight):g}"
