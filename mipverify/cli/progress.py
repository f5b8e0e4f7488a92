"""Progress of a long question on a terminal."""

from __future__ import annotations

import sys
from typing import Any


class Progress:
    """A status line on stderr while a question is being decided; silent when stderr is not a terminal.

    The engine calls it with the name of a stage and a few words on how far it got.
    """

    def __init__(self, *, hidden: bool = False):
        self._status: Any = None
        self._hidden = hidden or not sys.stderr.isatty()

    def __enter__(self) -> Progress:
        if not self._hidden:
            from rich.console import Console

            self._status = Console(stderr=True).status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def __call__(self, stage: str, text: str) -> None:
        if self._status is not None:
            from rich.markup import escape

            self._status.update(escape(f"{stage}  {text}"))
