"""The losses as modules, which keep what they traced and the step of their schedules."""

from __future__ import annotations

from typing import Any, Literal

import torch
from mipverify.models.adversarial import adversarial_loss
from mipverify.models.arguments import Domain, whole
from mipverify.models.certified import Certificate, Mixture, certified_loss
from mipverify.models.differentiable import Method, RowCount
from mipverify.models.schedules import Schedule, value_at
from mipverify.models.sparsity import weight_sparsity
from mipverify.models.stability import Reduction, relu_stability_loss
from mipverify.models.traced import Model, Traced
from torch import Tensor, nn

from mipverify.network.torch_trace import unwrapped


class _Loss(nn.Module):
    """A loss of a model and a batch that traces a module once, and whose radius may follow a schedule.

    `step()`, to be called with the optimizer's, moves the schedule on; where it is, is part of `state_dict`.
    """

    steps: Tensor

    def __init__(self, eps: float | Tensor | Schedule):
        super().__init__()
        self.scheduled = eps
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._traced: Traced | None = None

    @property
    def eps(self) -> float | Tensor:
        """The present radius."""
        return value_at(self.scheduled, int(self.steps))

    def step(self) -> None:
        """Go on by one step of the schedule."""
        self.steps += 1

    def traced(self, model: Model, shape: tuple[int, ...]) -> Model:
        """The model, or what was traced of it by an earlier call."""
        if not isinstance(unwrapped(model), nn.Module):
            return model
        module = unwrapped(model)
        if self._traced is None or self._traced.module is not module or self._traced.input_shape != shape:
            self._traced = Traced(module, shape)
        return self._traced

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_traced": None}  # the network is no part of its loss

    def extra_repr(self) -> str:
        return f"eps={self.scheduled}"


class ReLUStabilityLoss(_Loss):
    """`relu_stability_loss` with these arguments: `loss(model, x)`."""

    def __init__(
        self,
        eps: float | Tensor | Schedule,
        *,
        bounds: Method = "interval",
        domain: Domain = (0.0, 1.0),
        rows: RowCount = "auto",
        reduction: Reduction = "mean",
    ):
        super().__init__(eps)
        self.options: dict[str, Any] = {"bounds": bounds, "domain": domain, "rows": rows, "reduction": reduction}

    def forward(self, model: Model, x: Tensor) -> Tensor:
        """The loss of a model at x (B, *shape)."""
        return relu_stability_loss(self.traced(model, tuple(whole(x).shape[1:])), x, self.eps, **self.options)


class CertifiedLoss(_Loss):
    """`certified_loss` with these arguments: `loss(model, x, y)`, or `loss(model, x, y, attacked)` with a mixture."""

    def __init__(
        self,
        eps: float | Tensor | Schedule,
        *,
        bounds: Certificate = "interval",
        mixture: Mixture | None = None,
        alpha: float = 1.0,
        crown_share: float = 1.0,
        domain: Domain = (0.0, 1.0),
        reduction: Literal["mean", "none"] = "mean",
    ):
        super().__init__(eps)
        self.options: dict[str, Any] = {
            "bounds": bounds,
            "mixture": mixture,
            "alpha": alpha,
            "crown_share": crown_share,
        }
        self.options |= {"domain": domain, "reduction": reduction}

    def forward(self, model: Model, x: Tensor, y: Tensor, attacked: Tensor | None = None) -> Tensor:
        """The loss of a model at x (B, *shape) with labels y (B,)."""
        traced = self.traced(model, tuple(whole(x).shape[1:]))
        return certified_loss(traced, x, y, self.eps, attacked=attacked, **self.options)


class AdversarialLoss(_Loss):
    """`adversarial_loss` with these arguments: `loss(model, x, y)`."""

    def __init__(
        self,
        eps: float | Tensor | Schedule,
        *,
        steps: int = 8,
        step_size: float | None = None,
        random_start: bool = True,
        domain: Domain = (0.0, 1.0),
    ):
        super().__init__(eps)
        self.options: dict[str, Any] = {"steps": steps, "step_size": step_size}
        self.options |= {"random_start": random_start, "domain": domain}

    def forward(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a model at attacked points around x (B, *shape) with labels y (B,)."""
        return adversarial_loss(model, x, y, self.eps, **self.options)


class WeightSparsity(_Loss):
    """`weight_sparsity` of a module that takes inputs of this shape (no batch axis): `loss(model)`."""

    def __init__(self, input_shape: tuple[int, ...]):
        super().__init__(0.0)
        self.input_shape = tuple(input_shape)

    def forward(self, model: Model) -> Tensor:
        """The l_1 norm of the layers."""
        return weight_sparsity(self.traced(model, self.input_shape), self.input_shape)
