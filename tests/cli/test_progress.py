"""Progress: a line on a terminal for questions that take long, nothing anywhere else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

SCRIPT = """
import sys
from mipverify.cli import progress
progress.PATIENCE = float(sys.argv[1])
with progress.Progress() as line:
    line("crown", "[1 of 3]")
print("rich" in sys.modules)
"""


def on_a_terminal(patience: float) -> tuple[str, bool]:
    """What was written to a terminal on stderr, and whether rich was imported."""
    master, slave = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(patience)],
            stdout=subprocess.PIPE, stderr=slave, timeout=30, check=True, text=True,
        )  # fmt: skip
        os.write(slave, b"\n")
        return os.read(master, 10_000).decode(), done.stdout == "True\n"
    finally:
        os.close(slave)
        os.close(master)


def test_a_long_question_shows_its_stage() -> None:
    written, imported = on_a_terminal(0)
    assert "crown  [1 of 3]" in written
    assert imported


def test_a_short_question_pays_nothing() -> None:
    written, imported = on_a_terminal(60)
    assert written.strip() == ""
    assert not imported


def test_silent_in_a_pipe() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, "0"], capture_output=True, timeout=30, check=True)
    assert done.stderr == b""
