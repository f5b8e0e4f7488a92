"""Time, processes, memory, seeds and shapes as the public calls take them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from mipverify.errors import InputError

if TYPE_CHECKING:
    from mipverify.engine.stage import Stage


def require_limits(
    timeout: Any, seed: Any, workers: Any, memory: Any = None, least_workers: int = 1
) -> tuple[float, int, Any, Any]:
    """The four limits as Python's own numbers, whatever type they came in: clocks and records take no others.

    memory: may be None. workers: may be None where there may be no others, which leaves their number to the machine.
    Raises InputError for limits that no run could keep.
    """
    seconds = require_seconds(timeout)
    if not _whole(seed) or seed < 0:
        raise InputError(f"seed must be a whole number, 0 or more, not {seed!r}")
    if (workers is not None or least_workers) and (not _whole(workers) or workers < least_workers):
        raise InputError(f"workers must be a whole number, {least_workers} or more, not {workers!r}")
    if memory is not None and (not _whole(memory) or memory < 1):
        raise InputError(f"memory must be a whole number of bytes, not {memory!r}")
    return seconds, int(seed), _integer(workers), _integer(memory)


def _integer(value: Any) -> int | None:
    return None if value is None else int(value)


def require_seconds(timeout: Any) -> float:
    """A timeout of any type of numbers as a float, which is what clocks and threads count in. Raises InputError."""
    seconds = _float(timeout)
    if seconds is None or not seconds >= 0:
        raise InputError(f"timeout must be a number of seconds, 0 or more, not {timeout!r}")
    return seconds


def require_number(value: Any, what: str) -> float:
    """A number of any type as a float; what it may be is for others to say. Raises InputError."""
    number = _float(value)
    if number is None:
        raise InputError(f"{what} must be a number, not {value!r}")
    return number


def _float(value: Any) -> float | None:
    number: Any = value if isinstance(value, Real) else None
    try:
        return None if number is None else float(number)
    except OverflowError:  # a whole number beyond all floats
        return math.inf if number > 0 else -math.inf


def require_stages(stages: Any) -> tuple[Stage, ...]:
    """Stages that a question is to go through. Raises InputError."""
    from mipverify.engine.stage import Stage

    given = tuple(stages) if isinstance(stages, Iterable) else (stages,)
    for stage in given:
        if not isinstance(stage, Stage):
            raise InputError(f"stages must be stages such as those in mipverify.engine.schedule, not {stage!r}")
    return given


def require_sizes(shape: Any) -> None:
    """Raise InputError for an input_shape that is no list of sizes."""
    if isinstance(shape, str) or not hasattr(shape, "__iter__") or not all(_whole(size) and size > 0 for size in shape):
        raise InputError(f"input_shape must be the sizes of the axes, such as (1, 28, 28), not {shape!r}")


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
