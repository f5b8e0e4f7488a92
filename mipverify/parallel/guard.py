"""Work on a thread of its own, so that whoever waits for it waits no longer than its time, whatever it is stuck in.

Stages ask the clock themselves, and then keep what they have. What cannot ask, a decomposition or a solver's presolve,
is left behind: it ends with the process, or by itself the next time that it asks.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

GRACE = 0.25  # seconds after its end in which work may come back in good order; a process has 1 for that and its start
NAME = "mipverify-work"
PATIENCE = 10.0  # seconds: an interpreter does not end well under native code that has yet to return to it

R = TypeVar("R")


class Limit(Protocol):
    """What says how long."""

    def left(self) -> float:
        """Seconds until the end, not below zero."""

    def cancel(self) -> None:
        """Make the end now."""


class LeftBehindError(Exception):
    """Work did not come back in time."""


def run_within(limit: Limit, work: Callable[[], R]) -> R:
    """What `work` returns or raises, if it comes back soon after the limit; raises LeftBehindError otherwise.

    An interrupt cancels the limit, and is raised again once the work is back or left behind.
    """
    results: list[R] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            errors.append(error)

    thread = threading.Thread(target=run, name=NAME, daemon=True)
    thread.start()
    try:
        thread.join(min(limit.left() + GRACE, threading.TIMEOUT_MAX))
    except KeyboardInterrupt:
        limit.cancel()
        thread.join(GRACE)
        _leave(thread)
        raise
    if _leave(thread):
        limit.cancel()
        raise LeftBehindError
    if errors:
        raise errors[0]
    return results[0]


def anything_left_behind() -> bool:
    """Whether this process should end without waiting for its threads."""
    return any(thread.name == NAME for thread in threading.enumerate())


def _leave(thread: threading.Thread) -> bool:
    """Whether a thread works on; a script that ends meanwhile waits a little for it."""
    if thread.is_alive():
        atexit.register(thread.join, PATIENCE)
        return True
    return False
