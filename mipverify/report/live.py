"""Progress of a run: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mipverify.report.tally import Status

EVERY = 5.0  # seconds between plain lines


class Live:
    """Call it with each Status. Writes to stderr only.

    quiet    says nothing
    verbose  writes a line every few seconds where stderr is no terminal
    """

    def __init__(self, *, quiet: bool, verbose: bool):
        self._terminal = sys.stderr.isatty() and not quiet
        self._lines = verbose and not quiet and not self._terminal
        self._last = -EVERY
        self._display: Any = None

    def __enter__(self) -> Live:
        if self._terminal:
            from rich.console import Console
            from rich.live import Live as Display

            self._display = Display(console=Console(stderr=True), refresh_per_second=8, transient=True)
            self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._display is not None:
            with suppress(OSError):
                self._display.stop()
            self._display = None

    def __call__(self, status: Status) -> None:
        with suppress(OSError):  # of a terminal that is gone: the run goes on
            if self._display is not None:
                self._display.update(_panel(status))
            elif self._lines and time.monotonic() - self._last >= EVERY:
                self._last = time.monotonic()
                print(line(status), file=sys.stderr, flush=True)


def line(status: Status) -> str:
    """A run in progress in one line."""
    counts = status.counts
    return (
        f"{counts.samples}/{status.total} done: {counts.holds} hold, {counts.violated} violated, "
        f"{counts.misclassified} misclassified, {counts.unknown} unknown; "
        f"adversarial error {_errors(status)}; {duration(status.remaining)} left"
    )


def _errors(status: Status) -> str:
    """The interval of the error; with several radii that of each."""
    if not status.radii:
        return f"{status.lower:.2%} to {status.upper:.2%}"
    return ", ".join(f"at {eps} {each.lower:.2%} to {each.upper:.2%}" for eps, each in status.radii)


def duration(seconds: float | None) -> str:
    """Seconds for people: 30 ms, 7.0 s, 3:05 min, 2:10 h."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if 0 < seconds < 0.1:
        return f"{1000 * seconds:.1g} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def _panel(status: Status) -> Any:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    counts = status.counts
    head = Table.grid(padding=(0, 2))
    head.add_row(
        ProgressBar(total=status.total, completed=counts.samples, width=40),
        f"{counts.samples}/{status.total}",
        f"{duration(status.elapsed)} gone, {duration(status.remaining)} left",
    )
    body = Text.assemble(
        (f"{counts.holds} hold", "green"),
        "   ",
        (f"{counts.violated} violated", "red"),
        "   ",
        (f"{counts.misclassified} misclassified", "magenta"),
        "   ",
        (f"{counts.unknown} unknown", "yellow"),
        f"   adversarial error {_errors(status)}",
    )
    return Group(head, body)
