"""Copies of torch modules that stand for them: whatever is done to a copy, the module stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from mipverify.errors import InputError
from mipverify.network.torch_import import require_weights
from mipverify.network.torch_trace import unwrapped


@contextmanager
def untouched() -> Iterator[None]:
    """In here nothing has gradients, and torch's random numbers are afterwards those that they would have been."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        yield


def detached_copy(module: Any) -> nn.Module:
    """The module inside of wrappers, copied: on the CPU, in evaluation mode, without gradients.

    What cannot be copied is given back as it is: it is read and run in evaluation mode and then put back.
    """
    module = unwrapped(module)
    if not isinstance(module, nn.Module):
        raise InputError(f"a torch.nn.Module is needed, not {type(module).__name__}")
    require_weights(module)
    with untouched():
        # Computed tensors (pruned weights) that have a history refuse to be copied: their values are.
        known = {
            id(value): value.detach().clone()
            for part in module.modules()
            for value in vars(part).values()
            if isinstance(value, torch.Tensor) and not value.is_leaf
        }
        try:
            copy = deepcopy(module, known).cpu()
        except Exception:  # noqa: BLE001  # the module's own code
            return module
    for part in copy.modules():
        part.training = False
    for parameter in copy.parameters():
        parameter.grad = None
    return copy.requires_grad_(False)
