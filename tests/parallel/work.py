"""What a pool is asked to do in these tests; its workers import it by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

Stop = Callable[[], bool]


def scaled(factor: list[int], value: int, stop: Stop) -> int:
    """The product."""
    return factor[0] * value


def where(boss: int, value: int, stop: Stop) -> bool:
    """Whether this is not the process that asked."""
    return os.getpid() != boss


def dies_elsewhere(boss: int, value: int, stop: Stop) -> int:
    """Ends any other process."""
    if os.getpid() != boss:
        os._exit(7)
    return value


def fails_elsewhere(boss: int, value: int, stop: Stop) -> int:
    """Raises in any other process."""
    if os.getpid() != boss:
        raise RuntimeError
    return value


def slow_elsewhere(boss: int, value: int, stop: Stop) -> int:
    """Takes forever in any other process."""
    if os.getpid() != boss:
        time.sleep(600)
    return value


def fails_here(boss: int, value: int, stop: Stop) -> int:
    """Raises in the process that asked."""
    if os.getpid() == boss:
        raise RuntimeError
    return value


def waits_for_the_end(context: None, value: int, stop: Stop) -> int:
    """Goes on until it is told to stop."""
    while not stop():
        time.sleep(0.01)
    return value
