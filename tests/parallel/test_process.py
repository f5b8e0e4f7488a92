"""Child processes end with who started them, whatever they are doing, and never before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mipverify.parallel import ProcessPool
from mipverify.parallel.process import start, tied
from tests.parallel import work

ROOT = Path(__file__).parents[2]


def wait_for(what: Callable[[], bool], seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while not what() and time.monotonic() < until:
        time.sleep(0.02)
    return what()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_busy_child_ends_when_the_other_side_hangs_up() -> None:
    """Without the kernel's help, which only Linux gives."""
    process, connection = start("mipverify.parallel.worker")
    assert connection.recv() == "ready"
    connection.send(("context", os.getpid()))
    connection.send(("work", (work.slow_elsewhere, 1)))
    time.sleep(0.2)
    assert process.poll() is None
    connection.close()
    assert process.wait(10) == 0


def test_interrupts_of_the_terminal_leave_a_child_alone() -> None:
    """From its very first moment."""
    process, connection = start("mipverify.parallel.worker")
    for _ in range(20):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    assert connection.recv() == "ready"
    process.send_signal(signal.SIGINT)
    connection.send(("context", 7))
    connection.send(("work", (getattr, "real")))
    assert connection.poll(20)
    assert process.poll() is None
    connection.close()
    process.wait(10)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_workers_and_solvers_end_with_a_killed_process(sent: signal.Signals) -> None:
    script = (
        "import subprocess, os; from mipverify.parallel import ProcessPool\n"
        "from mipverify.parallel.process import tied\n"
        "from tests.parallel import work\n"
        "solver = subprocess.Popen(tied(['/bin/sleep', '600']))\n"
        "pool = ProcessPool(3)\n"
        "while pool.count < 3: pool.map(getattr, 1, ['real'], lambda: False)\n"
        "print(solver.pid, *(worker.process.pid for worker in pool._workers), flush=True)\n"
        "pool.map(work.slow_elsewhere, os.getpid(), [1, 2, 3], lambda: False)\n"
    )
    # Not by the working directory: PYTHONSAFEPATH may be set.
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert len(children) == 3
        assert all(alive(pid) for pid in children)
        process.send_signal(sent)
    assert wait_for(lambda: not any(alive(pid) for pid in children)), "a child lives on"


def test_a_tied_command_runs_with_its_arguments_and_exit_code() -> None:
    done = subprocess.run(
        tied(["/bin/sh", "-c", 'printf %s "$1"; exit 5', "sh", "a b"]), capture_output=True, text=True
    )
    assert (done.stdout, done.returncode) == ("a b", 5)


def test_a_killed_workers_part_keeps_its_limit() -> None:
    """What a worker that died was doing is done here, by the same clock."""
    with ProcessPool(2) as pool:
        assert wait_for(lambda: pool.map(getattr, 1, ["real"], lambda: False) == [1] and pool.count == 2)
        (worker,) = pool._workers
        end = time.monotonic() + 2.0

        def stop() -> bool:
            if time.monotonic() > end - 1.5:
                worker.process.kill()
            return time.monotonic() > end

        pool.map(work.waits_for_the_end, None, [1, 2], stop)
        assert time.monotonic() - end < 1.0
