"""torch modules in memory: what of them is asked about, and the networks of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from mipverify.errors import InputError, one_line
from mipverify.network import Network
from mipverify.network.torch_copy import detached_copy, untouched
from mipverify.network.torch_heads import Selected, outputs, two_classes
from mipverify.network.torch_import import from_torch
from mipverify.network.torch_trace import evaluating


def answering(module: nn.Module, output: int | str | None, transform: nn.Module | None) -> nn.Module:
    """The module behind a transform of its inputs, with one of its outputs."""
    if output is not None:
        module = Selected(module, output)
    return module if transform is None else nn.Sequential(detached_copy(transform), module)


def complaint(module: nn.Module, x: np.ndarray) -> str | None:
    """Why the module does not take one input x (*shape) and give one row of scores; None if it does.

    Raises InputError where it gives several outputs, of which one must be chosen.
    """
    parameter = next(iter(module.parameters()), torch.zeros(0))
    dtype = parameter.dtype if parameter.is_floating_point() else torch.float32
    given = torch.from_numpy(np.array(x, np.float32))[None].to(parameter.device, dtype)
    try:
        with untouched(), evaluating(module):
            result = module(given)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  # the module's own code
        return one_line(error)
    if not isinstance(result, torch.Tensor):
        raise InputError(f"the module gives no single tensor: {_choices(result)}; choose one with output=")
    if result.shape == (1,) or (result.ndim >= 2 and len(result) == 1 and result.numel() == result.shape[-1]):
        return None
    return f"its output is of shape {list(result.shape)}, not one row of scores"


def classifier(module: nn.Module, input_shape: tuple[int, ...]) -> Network:
    """The network of a module for inputs of this shape; two classes where it has one logit."""
    with untouched():
        network = from_torch(module, input_shape)
    return two_classes(network) if network.output_size == 1 else network


def _choices(result: Any) -> str:
    if dataclasses.is_dataclass(result) and not isinstance(result, Mapping):
        return f"it returns {', '.join(repr(field.name) for field in dataclasses.fields(result))}"
    return outputs(result)
