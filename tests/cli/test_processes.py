"""Commands as processes in surroundings that are not kind to them: signals, closed streams, places that are missing."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ZOO = Path(__file__).resolve().parents[2] / "models" / "zoo"
NET, IMAGES = ZOO / "mnist_small_linf0.1.onnx", ["--data", str(ZOO / "mnist_100.npz")]
COMMAND = [sys.executable, "-P", "-m", "mipverify"]

# All of them take a minute and more, and have children unless they say one worker.
LONG = {
    "verify": ["verify", str(NET), *IMAGES, "--index", "4", "--eps", "0.15", "--workers", "2"],
    "report": ["report", str(NET), *IMAGES, "--eps", "0.15", "--out", "run", "--workers", "2", "--samples", "0:60"],
    "report here": ["report", str(NET), *IMAGES, "--eps", "0.15", "--out", "run", "--workers", "0"],
    "distortion": ["distortion", str(NET), *IMAGES, "--samples", "0:60", "--out", "run", "--workers", "2"],
    "distortion here": ["distortion", str(NET), *IMAGES, "--samples", "0:60", "--out", "run", "--workers", "1"],
}
LONG["verify, confined"] = [*LONG["verify"], "--memory", "4G"]
SHORT = {
    "verify": ["verify", str(NET), *IMAGES, "--index", "0", "--eps", "0.05"],
    "report": ["report", str(NET), *IMAGES, "--eps", "0.05", "--out", "run", "--workers", "2", "--samples", "0:3"],
    "distortion": [
        "distortion",
        str(NET),
        *IMAGES,
        "--samples",
        "0:2",
        "--out",
        "run",
        "--workers",
        "2",
        "--gap",
        "0.9",
    ],
}


def children(pid: int) -> list[int]:
    """Processes that `pid` has started, and theirs."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent == pid:
                found += [int(folder.name), *children(int(folder.name))]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int]) -> bool:
    """Whether none of them is alive a few seconds from now: one that is just starting looks for its parent first."""
    until = time.monotonic() + 5
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that has begun its work."""
    process = subprocess.Popen(
        [*COMMAND, *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    # One of the two workers of a single question is the process that was asked.
    wanted = 1 if command[0] == "verify" and "--memory" not in command else 2
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until and not (
            len(children(process.pid)) >= wanted or (command[-1] in "01" and (folder / "run" / ".lock").exists())
        ):
            if command[0] == "verify" and time.monotonic() > until - 24:
                break  # its helpers come when stages do that can use them
            time.sleep(0.05)
        time.sleep(1.0)
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


# To the process alone, as `kill` sends it, or to its group, as a terminal does: without children they are the same.
INTERRUPTED = [(name, group) for name in LONG for group in (False, True) if not (group and name.endswith("here"))]


def slow_but(cases: list[Any], *quick: Any) -> list[Any]:
    """The cases for `parametrize`, all of them slow but a few."""
    marks = [() if case in quick else pytest.mark.slow for case in cases]
    return [pytest.param(*case, marks=mark) for case, mark in zip(cases, marks, strict=True)]


@pytest.mark.parametrize(
    ("name", "group"),
    slow_but(INTERRUPTED, ("verify", False), ("report", True)),
    ids=lambda value: {False: "process", True: "group"}.get(value, value),
)
def test_an_interrupt_is_answered_within_seconds(name: str, group: bool, tmp_path: Path) -> None:
    with running(LONG[name], tmp_path) as process:
        others = children(process.pid)
        begin = time.monotonic()
        (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert time.monotonic() - begin < 10
    assert process.returncode == 3, err
    assert "Traceback" not in err
    assert "interrupted" in out + err
    assert gone(others)


# Nothing answers the first two, which differ in nothing else.
KILLED = [(name, signal.SIGKILL) for name in ("verify", "verify, confined", "report", "distortion")]
KILLED += [("verify", signal.SIGTERM), ("report", signal.SIGTERM), ("report", signal.SIGHUP)]


@pytest.mark.parametrize(("name", "sent"), slow_but(KILLED, ("verify", signal.SIGTERM), ("report", signal.SIGKILL)))
def test_no_child_outlives_a_killed_command(name: str, sent: signal.Signals, tmp_path: Path) -> None:
    with running(LONG[name], tmp_path) as process:
        others = children(process.pid)
        assert others or name == "verify"
        process.send_signal(sent)
        assert process.wait(20) == -sent
    assert gone(others)
    if not name.startswith("verify"):  # no lock stays, and nothing is damaged
        done = subprocess.run(
            [*COMMAND, *LONG[name], "--samples", "2:3", "--timeout", "1"], cwd=tmp_path, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_a_killed_worker_costs_no_sample(tmp_path: Path) -> None:
    with running([*LONG["distortion"], "--samples", "0:2", "--timeout", "5"], tmp_path) as process:
        os.kill(children(process.pid)[0], signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert json.loads((tmp_path / "run" / "distances.json").read_text())["samples"] == 2


def test_a_second_interrupt_ends_what_does_not_hear() -> None:
    script = (
        "import sys, time\n"
        "from mipverify.cli.main import run\n"
        "from mipverify.cli.program import Program\n"
        "def deaf():\n"
        "    for _ in range(60):\n"
        "        try:\n            print('on', flush=True); time.sleep(60)\n"
        "        except KeyboardInterrupt:\n            pass\n"
        "sys.exit(run(['deaf'], Program('it', '', {'deaf': ''}, {'deaf': deaf}.__getitem__)))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline() == "on\n"
            process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT


CLOSED = [(name, streams) for name in SHORT for streams in (">&-", "2>&-", "<&- >&- 2>&-")]


@pytest.mark.parametrize(("name", "streams"), slow_but(CLOSED, ("verify", ">&-"), ("report", "<&- >&- 2>&-")))
def test_closed_streams_change_no_outcome(name: str, streams: str, tmp_path: Path) -> None:
    """A database that got the descriptor of stdout would be full of what is printed."""
    for json_option in ([], ["--json"]):
        line = " ".join([*COMMAND, *SHORT[name], *json_option, streams])
        done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, timeout=100, check=False)
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


@pytest.mark.parametrize("line", ["--help | true", "verify --help >&-", "--version | true", "--version >&-"])
def test_help_without_a_reader(line: str) -> None:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} -P -m mipverify {line}"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("more", [[], ["--json"], ["-q"]], ids=" ".join)
def test_a_verdict_that_cannot_be_printed_is_written_all_the_same(more: list[str], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [*COMMAND, *SHORT["verify"], *more, "--result-file", "out.txt"], cwd=tmp_path, stdout=full,
            stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done.stderr
    assert "No space left" in done.stderr
    assert (tmp_path / "out.txt").read_text() == "unsat\n"


def unshared(name: str) -> str:
    """Without shared memory: a mount that only this command sees."""
    return f"unshare --mount bash -c 'mount -t tmpfs -o ro none /dev/shm && exec {name}'"


PLACES = ["no TMPDIR", "no HOME", "one core", "64 files", "no shared memory"]
MISSING = [(name, place) for name in SHORT for place in PLACES]


@pytest.mark.parametrize(("name", "place"), slow_but(MISSING, ("verify", "no HOME"), ("report", "64 files")))
def test_what_may_be_missing(name: str, place: str, tmp_path: Path) -> None:
    line, environment = " ".join([*COMMAND, *SHORT[name]]), dict(os.environ)
    if place == "no TMPDIR":
        environment["TMPDIR"] = "/nonexistent"
    elif place == "no HOME":
        environment = {key: value for key, value in environment.items() if key != "HOME"}
    elif place == "one core":
        line = f"taskset -c {min(os.sched_getaffinity(0))} {line}"
    elif place == "64 files":
        line = f"ulimit -n 64; {line}"
    else:
        probe = subprocess.run(["bash", "-c", unshared("true")], capture_output=True, check=False)
        if probe.returncode != 0:
            pytest.skip("mounting is not permitted here")
        line = unshared(line)
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_terminal_that_goes_away_ends_no_run(tmp_path: Path) -> None:
    """As with `nohup` and a connection that breaks."""
    ours, theirs = pty.openpty()
    ask = [*COMMAND, "report", str(NET), *IMAGES, "--eps", "0.15", "--samples", "0:3", "--timeout", "5"]
    with subprocess.Popen(
        [*ask, "--workers", "1", "--out", "run"], cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        os.read(ours, 1)  # it shows its progress
        os.close(ours)
        assert process.wait(100) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["samples"] == 3


def test_a_folder_that_is_removed_while_a_run_goes_on(tmp_path: Path) -> None:
    with running(
        [*LONG["distortion here"], "--samples", "0:2", "--timeout", "3", "--workers", "1"], tmp_path
    ) as process:
        shutil.rmtree(tmp_path / "run")
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n")) == (4, 1), err
    assert "mipverify: error:" in err
    assert "internal" not in err
