"""A worker process of `LocalExecutor`: `python -m mipverify.cluster.worker SOCKET PARENT`."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection

from mipverify.cluster.executor import Ended, Found, Lost, Task
from mipverify.cluster.job import Job, Verifier, peak_memory
from mipverify.errors import InputError


def main(descriptor: int, parent: int) -> None:
    """Receive a job and then tasks until the other side is gone; answer with results, one by one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    _die_with(parent)
    connection = Connection(descriptor)
    job = connection.recv()
    assert isinstance(job, Job)
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    try:
        verifier = Verifier(job)
    except InputError as error:
        connection.send(error)
        return
    connection.send(None)
    while True:
        _work(connection, verifier, tasks.get())


def _work(connection: Connection, verifier: Verifier, task: Task) -> None:
    try:
        for result in verifier.run(task.indices, only_cheap=task.only_cheap):
            connection.send(Found(task.number, result))
        connection.send(Ended(task.number, peak_memory()))
    except InputError as error:
        connection.send(error)
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:  # noqa: BLE001 - one sample that fails must not cost the others
        connection.send(Lost(task.number, f"{type(error).__name__}: {error}"))


def _listen(connection: Connection, tasks: queue.SimpleQueue[Task]) -> None:
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)  # nobody would receive what the main thread is working on


def _die_with(parent: int) -> None:
    """On Linux, have the kernel end this process with its parent, even while native code holds the interpreter."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
