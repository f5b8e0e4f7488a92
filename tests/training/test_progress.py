"""What is shown while a network is trained."""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path

import pytest
from mipverify.models.training.loop import Progress
from mipverify.models.training.progress import Live, TensorBoard, line

from mipverify.errors import InputError


def progress(step: int, *, finished: bool = False) -> Progress:
    metrics = {"loss": 0.12345, "test accuracy": 0.987, "l1": 5112.5}
    return Progress(2, 3, step, 30, 1.5, metrics, finished=finished)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_line() -> None:
    assert line(progress(20)) == "epoch 2/3  1.5 s  loss 0.1235, test accuracy 98.70%, l1 5112"


def test_one_line_for_each_epoch_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with Live() as live:
        for step in range(10, 20):
            live(progress(step))
        live(progress(20, finished=True))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


def test_display_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Live() as live:
        for step in (10, 11, 20):
            live._last = 0.0  # as if time had passed
            live(progress(step, finished=step == 20))
    shown = terminal.getvalue()
    assert "epoch 2/3" in shown
    assert "98.70%" in shown
    assert "left" in shown


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with Live(quiet=True) as live:
        live(progress(20, finished=True))
    assert capsys.readouterr().err == ""


def test_tensorboard(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(InputError, match="tensorboard"):
            TensorBoard(tmp_path)
        return
    log = TensorBoard(tmp_path)
    log(progress(20, finished=True))
    log.close()
    assert list(tmp_path.glob("events*"))
