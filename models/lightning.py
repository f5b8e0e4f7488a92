"""A Lightning callback that adds the ReLU stability loss and weight sparsity to whatever a module trains with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mipverify.models.arguments import Domain
from mipverify.models.counting import unstable_units
from mipverify.models.differentiable import Method, RowCount
from mipverify.models.schedules import Schedule, value_at
from mipverify.models.sparsity import weight_sparsity
from mipverify.models.stability import Reduction, relu_stability_loss
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

    eps: the radius to verify, or a schedule of it over optimizer steps. stability, sparsity: weights, or schedules of
    them. attribute: where in the LightningModule the network is ("net"), or "" for the module itself. inputs: finds the
    inputs in a batch, in the range of `domain`; its first entry unless given. bounds, rows, domain: see
    `relu_stability_loss`; reduction: "mean" (a sum over units) or "unit" (their mean). Logs `relu_stability` and
    `weight_sparsity`, and on the first `watched` validation batches `unstable_units`, their mean number at the final
    radius by interval arithmetic. For automatic optimization.
    """

    def __init__(
        self,
        eps: float | Schedule,
        *,
        stability: float | Schedule = 1e-4,
        sparsity: float | Schedule = 2e-5,
        bounds: Method = "interval",
        rows: RowCount = "auto",
        domain: Domain = (0.0, 1.0),
        reduction: Reduction = "mean",
        attribute: str = "",
        inputs: Callable[[Any], Tensor] = first_of,
        watched: int = 1,
    ):
        super().__init__()
        self.eps, self.stability, self.sparsity = eps, stability, sparsity
        self.bounds, self.rows, self.domain = bounds, rows, domain
        self.reduction, self.watched = reduction, watched
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
        eps, stability, sparsity = (
            value_at(value, trainer.global_step) for value in (self.eps, self.stability, self.sparsity)
        )
        penalty = loss.new_zeros(())
        if stability:
            term = relu_stability_loss(
                self._traced,
                self._x,
                eps,
                bounds=self.bounds,
                rows=self.rows,
                domain=self.domain,
                reduction=self.reduction,
            )
            pl_module.log("relu_stability", term.detach())
            penalty = penalty + stability * term
        if sparsity:
            term = weight_sparsity(self._traced)
            pl_module.log("weight_sparsity", term.detach())
            penalty = penalty + sparsity * term
        penalty = penalty / trainer.accumulate_grad_batches
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        # In place: Lightning runs backward on this very tensor, which it has scaled already for half precision.
        loss.add_(penalty if scaler is None else scaler.scale(penalty))
        self._x = None

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx >= self.watched or dataloader_idx:
            return
        x = self.inputs(batch)
        eps = self.eps.final if isinstance(self.eps, Schedule) else self.eps
        found = unstable_units(pl_module.get_submodule(self.attribute), x, eps, domain=self.domain)
        pl_module.log("unstable_units", float(found.mean.sum()), batch_size=len(x))
