"""A worker process of `LocalExecutor`."""

from __future__ import annotations

import os
import queue
import threading
from multiprocessing.connection import Connection

from mipverify import garbage
from mipverify.cluster.executor import Ended, Found, Lost, Runner, Task
from mipverify.cluster.job import peak_memory
from mipverify.errors import InputError
from mipverify.parallel.process import connect


def main(channel: int, parent: int) -> None:
    """Receive a job and then tasks until the other side is gone; answer with results, one by one.

    Arguments as of `connect`.
    """
    garbage.put_off()
    connection = connect(channel, parent)
    job = connection.recv()
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    try:
        runner = job.runner()
    except InputError as error:
        connection.send(error)
        return
    connection.send(None)
    garbage.begin()
    while True:
        _work(connection, runner, tasks.get())


def _work(connection: Connection, runner: Runner, task: Task) -> None:
    try:
        for result in runner.run(task):
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
