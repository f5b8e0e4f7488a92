"""A Lightning callback that adds the ReLU stability loss and weight sparsity to whatever a module trains with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mipverify.models.adversarial import RadiusSchedule
from mipverify.models.differentiable import Domain, Method
from mipverify.models.sparsity import weight_sparsity
from mipverify.models.stability import ROWS, relu_stability_loss
from mipverify.models.traced import Traced
from torch import Tensor

from mipverify.errors import InputError

try:
    from lightning.pytorch import Callback
except ImportError as error:
    raise ImportError("the callback needs Lightning: pip install 'mipverify[lightning]'") from error


def first_of(batch: Any) -> Tensor:
    """The inputs of a batch that is a tensor, or a sequence that begins with one."""
    found = batch[0] if isinstance(batch, (tuple, list)) else batch
    if not isinstance(found, Tensor):
        raise InputError(f"no inputs found in a batch of type {type(batch).__name__}: give `inputs`")
    return found


class StabilityCallback(Callback):
    """Adds `stability * relu_stability_loss + sparsity * weight_sparsity` to the loss, before each backward pass.

    eps: the radius to verify, or a schedule of it over optimizer steps. attribute: where in the LightningModule the
    network is ("net"), or "" for the module itself. inputs: finds the inputs in a batch, in the range of `domain`; its
    first entry unless given. bounds, rows, domain: see `relu_stability_loss`. Logs `relu_stability` and
    `weight_sparsity`. For automatic optimization.
    """

    def __init__(
        self,
        eps: float | RadiusSchedule,
        *,
        stability: float = 1e-4,
        sparsity: float = 2e-5,
        bounds: Method = "interval",
        rows: int | None = ROWS,
        domain: Domain = (0.0, 1.0),
        attribute: str = "",
        inputs: Callable[[Any], Tensor] = first_of,
    ):
        super().__init__()
        self.eps, self.stability, self.sparsity = eps, stability, sparsity
        self.bounds, self.rows, self.domain = bounds, rows, domain
        self.attribute, self.inputs = attribute, inputs
        self._x: Tensor | None = None
        self._traced: Traced | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if not pl_module.automatic_optimization:
            raise InputError("with manual optimization, call relu_stability_loss in training_step instead")
        self._traced = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._x = self.inputs(batch)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        assert self._x is not None
        if self._traced is None:
            network = pl_module.get_submodule(self.attribute)
            self._traced = Traced(network, tuple(self._x.shape[1:]))
        eps = self.eps(trainer.global_step) if isinstance(self.eps, RadiusSchedule) else self.eps
        penalty = loss.new_zeros(())
        if self.stability:
            term = relu_stability_loss(
                self._traced, self._x, eps, bounds=self.bounds, rows=self.rows, domain=self.domain
            )
            pl_module.log("relu_stability", term.detach())
            penalty = penalty + self.stability * term
        if self.sparsity:
            term = weight_sparsity(self._traced)
            pl_module.log("weight_sparsity", term.detach())
            penalty = penalty + self.sparsity * term
        penalty = penalty / trainer.accumulate_grad_batches
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        # In place: Lightning runs backward on this very tensor, which it has scaled already for half precision.
        loss.add_(penalty if scaler is None else scaler.scale(penalty))
        self._x = None
