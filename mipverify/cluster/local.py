"""Samples run in processes of this machine, one thread each."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

from mipverify.cluster.executor import ClusterError, Ended, Event, Found, Job, Lost, Task
from mipverify.errors import InputError
from mipverify.parallel.process import start

# Workers that die before they are ready are started again this often.
STARTS = 3


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    ready: bool = False
    task: Task | None = field(default=None)


class LocalExecutor:
    """Worker processes, each with its own copy of network and data; they end when this one does, `kill -9` included."""

    exact_blame = True

    def __init__(self, job: Job, workers: int):
        self._job = job
        self._failed_starts = 0
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._workers.append(_start())
            for worker in self._workers:
                self._send(worker, job)
        except BaseException:
            self.close()
            raise

    @property
    def workers(self) -> int:
        return len(self._workers)

    @property
    def free(self) -> int:
        return sum(worker.task is None for worker in self._workers)

    def submit(self, task: Task) -> None:
        worker = next(worker for worker in self._workers if worker.task is None)
        worker.task = task
        self._send(worker, task)

    def wait(self, timeout: float) -> list[Event]:
        by_connection = {worker.connection: worker for worker in self._workers}
        ready = wait(list(by_connection), timeout)
        events: list[Event] = []
        for connection in ready:
            assert isinstance(connection, Connection)
            events += self._drain(by_connection[connection])
        return events

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
            worker.connection.close()
        self._workers = []

    def _send(self, worker: _Worker, message: object) -> None:
        try:
            worker.connection.send(message)
        except OSError:  # it died: noticed and handled by wait()
            return

    def _drain(self, worker: _Worker) -> list[Event]:
        events: list[Event] = []
        until = time.monotonic() + 0.1  # a quick worker must not keep the others waiting
        try:
            while time.monotonic() < until and worker.connection.poll():
                match worker.connection.recv():
                    case None:
                        worker.ready = True
                        self._failed_starts = 0
                    case InputError() as error:
                        raise error
                    case Found() as found:
                        events.append(found)
                    case Ended() | Lost() as over:
                        events.append(over)
                        worker.task = None
        except (EOFError, OSError):
            events += self._replace(worker)
        return events

    def _replace(self, worker: _Worker) -> list[Event]:
        worker.connection.close()
        worker.process.kill()
        reason = f"worker process {_manner_of_death(worker.process.wait())}"
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= STARTS:
                raise ClusterError(f"{reason} before it could start work ({STARTS} times)")
        fresh = _start()
        self._workers[self._workers.index(worker)] = fresh
        self._send(fresh, self._job)
        return [] if worker.task is None else [Lost(worker.task.number, reason, blame=worker.ready)]


def _start() -> _Worker:
    return _Worker(*start("mipverify.cluster.worker"))


def _manner_of_death(status: int) -> str:
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
