"""Progress in a notebook: a bar in the output of the running cell, replaced in place."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import TYPE_CHECKING, Any

from mipverify.report.live import duration, line

if TYPE_CHECKING:
    from mipverify.report.tally import Status

EVERY = 0.2  # seconds between two updates, each of which is a message to the browser


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook (Jupyter, VS Code, Colab), not the shell of a terminal."""
    interactive = sys.modules.get("IPython")  # a kernel has imported it
    shell = interactive.get_ipython() if interactive is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookBar:
    """A bar with a line of text; stays in the output when it is closed, as it was last. Nothing is shown of no steps.

    The browser draws it (`<progress>`), so that no widget extension is needed; front ends without HTML get the text.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown: Any = None  # what replaces the output
        self._at = 0.0
        self._pending: _Step | None = None

    def __enter__(self) -> NotebookBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pending is not None:
            self._draw(self._pending)

    def step(self, done: int, total: int, text: str = "") -> None:
        """So many of `total` are done; the text goes on in the same line, by default with the time."""
        now = time.monotonic()
        if not text:
            elapsed = now - self._began
            left = elapsed / done * (total - done) if done else None
            text = f"{done}/{total} done; {duration(elapsed)} gone, {duration(left)} left"
        step = _Step(done, total, text)
        if self._shown is None or now - self._at >= EVERY:
            self._draw(step)
        else:
            self._pending = step

    def __call__(self, status: Status) -> None:
        """What a run tells."""
        self.step(status.counts.samples, status.total, line(status))

    def _draw(self, step: _Step) -> None:
        from IPython.display import display

        self._at, self._pending = time.monotonic(), None
        if self._shown is None:
            self._shown = display(step, display_id=True)
        else:
            self._shown.update(step)


class _Step:
    """One state of the bar, as HTML and as text."""

    def __init__(self, done: int, total: int, text: str):
        self._done, self._total, self._text = done, total, text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        bar = f"<progress value='{self._done}' max='{max(self._total, 1)}' style='width:16em'></progress>"
        return f"<div>{bar} <span>{escape(self._text)}</span></div>"
