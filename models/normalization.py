"""Batch normalization in training: the statistics that bounds use are those of a clean pass over the same batch."""

from __future__ import annotations

from typing import Any

import torch
from mipverify.models.precision import full_precision
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from mipverify.errors import InputError, one_line
from mipverify.network.torch_import import Statistics
from mipverify.network.torch_trace import evaluating, trace, unwrapped


def batch_normalizations(module: nn.Module) -> list[_BatchNorm]:
    """The batch normalizations that use the statistics of their batch: those in training mode."""
    return [
        part
        for part in module.modules()
        if isinstance(part, _BatchNorm) and (part.training or part.running_mean is None)
    ]


def clean_statistics(module: nn.Module, x: Tensor, traced: fx.GraphModule | None = None) -> Statistics:
    """Mean and variance (channels,) of what each batch normalization in training mode is given, for a batch x.

    Differentiable in the parameters. From one pass over x (B, *shape) itself, unperturbed, in which nothing is dropped
    out; running statistics, modes and random numbers are left alone. A batch normalization does not change when the
    weights before it are scaled, and with these statistics neither do bounds: a loss of them has no slope in that
    direction, where with constant ones it would shrink the weights without making anything more stable.

    traced: what `trace` gave for the module; layers run as they do there, without checkpoints that would run them again
    once their statistics are those of another batch.
    """
    module = unwrapped(module)
    layers = batch_normalizations(module)
    if not layers:
        return {}
    found: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def normalized(layer: Any, given: tuple[Any, ...], _: Any) -> Tensor:
        (z,) = given
        axes = [axis for axis in range(z.ndim) if axis != 1]
        if z.numel() == z.shape[1]:
            raise InputError("batch normalization in training mode: one value for each channel has no variance")
        variance, mean = torch.var_mean(z, axes, correction=0)
        found[layer] = mean, variance
        return functional.batch_norm(z, None, None, layer.weight, layer.bias, True, 0.0, layer.eps)

    graph = trace(module) if traced is None else traced
    parameter = next(iter(module.parameters()), x)
    with full_precision(), evaluating(module):
        hooks = [layer.register_forward_hook(normalized) for layer in layers]
        try:
            graph(x.to(parameter.dtype))
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001  # the module's own code
            raise InputError(
                f"{type(module).__name__} cannot be run on inputs {list(x.shape)}: {one_line(error)}"
            ) from None
        finally:
            for hook in hooks:
                hook.remove()
    return found
