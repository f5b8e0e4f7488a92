"""Who is told of the stages of a question, and of how far a run is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mipverify.report.tally import Status

Progress = Callable[[str, str], None] | bool


def follower(progress: Progress | None) -> Callable[[str, str], None] | None:
    """The caller's own function, or a line on stderr for each stage; None for nobody."""
    if progress is True:
        return lambda stage, text: print(f"{stage}: {text}" if text else stage, file=sys.stderr)
    return progress or None


def run_display() -> AbstractContextManager[Callable[[Status], None]]:
    """Shows how far a run is, where it is looked at: a bar in a notebook, else a display or lines on stderr."""
    from mipverify.report.live import Live
    from mipverify.report.notebook import NotebookBar, in_notebook

    return NotebookBar() if in_notebook() else Live(quiet=False, verbose=True)
