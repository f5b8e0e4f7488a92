"""Progress of a training: a live display on a terminal, one line for each epoch elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from mipverify.models.training.loop import Progress

from mipverify.errors import InputError

REFRESH = 0.2  # seconds between updates of the display


class Live:
    """Call it with each `Progress`. `quiet` says nothing."""

    def __init__(self, *, quiet: bool = False):
        self._terminal = sys.stderr.isatty() and not quiet
        self._quiet = quiet
        self._last = 0.0
        self._display: Any = None
        self._began = time.monotonic()
        self._first = 0

    def __enter__(self) -> Live:
        if self._terminal:
            from rich.console import Console
            from rich.live import Live as Display

            self._display = Display(console=Console(stderr=True), refresh_per_second=8, transient=True)
            self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None

    def __call__(self, progress: Progress) -> None:
        if self._quiet:
            return
        if progress.finished:
            if self._display is not None:
                self._display.console.print(line(progress), highlight=False)
            else:
                print(line(progress), file=sys.stderr, flush=True)
        if self._display is None:
            return
        self._first = self._first or progress.step
        if time.monotonic() - self._last >= REFRESH:
            self._last = time.monotonic()
            done = progress.step - self._first
            left = (self._last - self._began) / done * (progress.steps - progress.step) if done else None
            self._display.update(_panel(progress, left))


def line(progress: Progress) -> str:
    """An epoch in one line."""
    figures = ", ".join(f"{name} {figure(name, value)}" for name, value in progress.metrics.items())
    return f"epoch {progress.epoch}/{progress.epochs}  {progress.seconds:.1f} s  {figures}"


def figure(name: str, value: float) -> str:
    """A metric for people: accuracies in percent."""
    if "accuracy" in name:
        return f"{value:.2%}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.4g}"


def _panel(progress: Progress, left: float | None) -> Any:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    head = Table.grid(padding=(0, 2))
    remaining = "" if left is None else f"{int(left) // 60}:{int(left) % 60:02d} left"
    head.add_row(
        ProgressBar(total=progress.steps, completed=progress.step, width=40),
        f"epoch {progress.epoch}/{progress.epochs}",
        remaining,
    )
    body = Table.grid(padding=(0, 2))
    body.add_row(*(f"{name} {figure(name, value)}" for name, value in progress.metrics.items()))
    return Group(head, body)


class TensorBoard:
    """Writes the metrics of every epoch into `directory`. Needs the package tensorboard."""

    def __init__(self, directory: Path):
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise InputError(
                "--tensorboard needs the package tensorboard: pip install 'mipverify[tensorboard]'"
            ) from None
        self._writer: Any = SummaryWriter(str(directory))

    def __call__(self, progress: Progress) -> None:
        for name, value in progress.metrics.items():
            self._writer.add_scalar(name.replace(" ", "_"), value, progress.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Finish the files."""
        self._writer.close()
