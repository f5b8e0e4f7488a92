"""Time, processes, memory, seeds and shapes as the public calls take them."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from mipverify.errors import InputError


def require_limits(timeout: Any, seed: Any, workers: Any = None, memory: Any = None, least_workers: int = 1) -> None:
    """Raise InputError for limits that no run could keep; workers and memory may be None where that has a meaning."""
    if not isinstance(timeout, Real) or not float(timeout) >= 0:
        raise InputError(f"timeout must be a number of seconds, 0 or more, not {timeout!r}")
    if not _whole(seed) or seed < 0:
        raise InputError(f"seed must be a whole number, 0 or more, not {seed!r}")
    if workers is not None and (not _whole(workers) or workers < least_workers):
        raise InputError(f"workers must be a whole number, {least_workers} or more, not {workers!r}")
    if memory is not None and (not _whole(memory) or memory < 1):
        raise InputError(f"memory must be a whole number of bytes, not {memory!r}")


def require_sizes(shape: Any) -> None:
    """Raise InputError for an input_shape that is no list of sizes."""
    if isinstance(shape, str) or not hasattr(shape, "__iter__") or not all(_whole(size) and size > 0 for size in shape):
        raise InputError(f"input_shape must be the sizes of the axes, such as (1, 28, 28), not {shape!r}")


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
