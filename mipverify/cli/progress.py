"""Progress of a long question on a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any

PATIENCE = 0.5  # seconds; most questions are answered by then, and importing rich would take a fifth of that


class Progress:
    """A line on stderr while a question is being decided; silent when stderr is not a terminal, gone at the end.

    The engine calls it with the name of a stage and a few words on how far it got.
    """

    def __init__(self, *, hidden: bool = False):
        self._hidden = hidden or not sys.stderr.isatty()
        self._started = time.monotonic()
        self._line: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._line is not None:
            with suppress(OSError):
                self._line.stop()

    def __call__(self, stage: str, text: str) -> None:
        if self._hidden or time.monotonic() - self._started < PATIENCE:
            return
        try:
            if self._line is None:
                self._line = _spinner()
                self._line.start()
            self._line.update(self._line.task_ids[0], description=f"{stage}  {text}".rstrip())
        except OSError:  # the terminal is gone, the question is not
            self._hidden = True


def _spinner() -> Any:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    spinner = Progress(*columns, console=Console(stderr=True), transient=True)
    spinner.add_task("", total=None)
    return spinner
