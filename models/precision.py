"""Bounds are computed in float32 or float64, whatever a training loop's automatic mixed precision says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def full_precision() -> AbstractContextManager[object]:
    """In here no operation is autocast to half precision, on any device: its rounding is no part of any bound."""
    stack = ExitStack()
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            stack.enter_context(torch.autocast(device, enabled=False))
    return stack


def in_full_precision(function: Callable[P, T]) -> Callable[P, T]:
    """The function, run in `full_precision`, and as it is in code that `torch.compile` compiles."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with full_precision():
            return function(*args, **kwargs)

    compiled: Callable[P, T] = torch.compiler.disable(run)
    return compiled
