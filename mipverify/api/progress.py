"""Who is told of the stages of a question, and of how far a run is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from mipverify.errors import InputError

if TYPE_CHECKING:
    from mipverify.report.tally import Status

Progress = Callable[[str, str], None] | bool


def follower(progress: Progress | None) -> Callable[[str, str], None] | None:
    """The caller's own function, or a line on stderr for each stage; None for nobody."""
    if progress is True:
        return lambda stage, text: print(f"{stage}: {text}" if text else stage, file=sys.stderr)
    return function(progress)


def function(progress: Any) -> Any:
    """What is called, or None for nobody. Raises InputError for what cannot be called."""
    if progress is None or progress is False:
        return None
    if not callable(progress):
        raise InputError(f"progress must be a function, True or None, not {progress!r}")
    return progress


def run_display() -> AbstractContextManager[Callable[[Status], None]]:
    """Shows how far a run is, where it is looked at: a bar in a notebook, else a display or lines on stderr."""
    from mipverify.report.live import Live
    from mipverify.report.notebook import NotebookBar, in_notebook

    return NotebookBar() if in_notebook() else Live(quiet=False, verbose=True)
