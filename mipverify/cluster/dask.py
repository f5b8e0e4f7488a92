"""Samples run on a Dask cluster: one that is there already, or one that is started on this machine."""

from __future__ import annotations

import os
import queue
import signal
import time
import uuid
import warnings
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from typing import Any

from mipverify.cluster.executor import Answer, ClusterError, Ended, Event, Found, Job, Lost, Runner, Task
from mipverify.cluster.job import peak_memory
from mipverify.errors import InputError
from mipverify.parallel.process import interrupts_held_back
from mipverify.parallel.threads import ONE_THREAD

CONNECT, RECONNECT = 10.0, 60.0  # seconds

# Tasks that wait at the scheduler for each thread: hides the way there and back, and shows an adaptive cluster
# that more workers would have something to do.
AHEAD = 2


class DaskExecutor:
    """Workers of a Dask scheduler. Network and data are sent to each worker once, so that no file has to be shared.

    Results come at the end of a task. When a worker dies, Dask gives its tasks to another one, and after several
    deaths the task is handed back. When the scheduler goes away, a new connection is tried for a minute.
    Raises InputError if there is no scheduler at the address or the package is not installed.
    """

    exact_blame = False  # a worker that dies takes the tasks with it that only waited there

    def __init__(self, job: Job, address: str, *, workers: int):
        try:
            import distributed
        except ImportError:
            raise InputError("--cluster needs dask: pip install 'mipverify[cluster]'") from None
        self._dask = distributed
        self._job = job
        self._cluster: Any = None
        if address == "local":
            import dask

            # Dask starts workers by `multiprocessing`: no child of this process finds modules in the working directory.
            os.environ["PYTHONSAFEPATH"] = "1"
            settings = {"distributed.scheduler.allowed-failures": 0}  # who runs again is decided here
            # Its threads and the workers that they start leave Ctrl-C to this one.
            try:
                with dask.config.set(settings), interrupts_held_back():
                    self._cluster = distributed.LocalCluster(
                        n_workers=workers, threads_per_worker=1, dashboard_address=None, env=ONE_THREAD, silence_logs=50
                    )
            except (OSError, RuntimeError) as error:  # it needs shared memory and ports, among others
                raise InputError(f"--cluster local: Dask cannot start workers here ({_line(error)})") from None
            address = self._cluster.scheduler_address
        self._address = address
        self._in_flight: dict[int, Any] = {}
        self._over: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        try:
            self._connect(CONNECT)
        except OSError as error:
            self.close()
            raise InputError(f"--cluster {address}: no Dask scheduler answers ({_line(error)})") from None

    @property
    def workers(self) -> int:
        return max(sum(self._client.nthreads().values()), 1)

    @property
    def free(self) -> int:
        return max(AHEAD * self._workers - len(self._in_flight), 0)

    def submit(self, task: Task) -> None:
        future = self._client.submit(run_task, self._runner, task, pure=False, key=f"mipverify-{uuid.uuid4()}")
        self._in_flight[task.number] = future
        future.add_done_callback(partial(_report, self._over, task.number))

    def wait(self, timeout: float) -> list[Event]:
        events: list[Event] = []
        try:
            item = self._over.get(timeout=timeout)
            while True:
                events += self._ended(*item)
                item = self._over.get_nowait()
        except queue.Empty:
            pass
        if self._client.status != "running":
            events += self._reconnect()
        elif self._counted < time.monotonic() - 2.0:
            self._count_workers()
        return events

    def close(self) -> None:
        if self._cluster is not None:
            for nanny in self._cluster.workers.values():
                nanny.auto_restart = False
                with suppress(OSError, TypeError):  # it has ended, or not begun
                    os.kill(nanny.pid, signal.SIGKILL)  # busy in native code, it would not hear of the end
        for part in (getattr(self, "_client", None), self._cluster):
            if part is not None:
                with suppress(OSError, TimeoutError):
                    part.close(timeout=2)

    def _connect(self, seconds: float) -> None:
        self._client = self._dask.Client(self._address, timeout=seconds, set_as_default=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sending large graph")
            # A task and not scattered data: Dask makes it again when the workers that held it are gone.
            self._runner = self._client.submit(make_runner, self._job, pure=False, key=f"mipverify-{uuid.uuid4()}")
        self._count_workers()

    def _reconnect(self) -> list[Event]:
        """A new connection to the scheduler, or to the one that took its place; everything in flight is lost."""
        until = time.monotonic() + RECONNECT
        self._client.close(timeout=1)
        while True:
            try:
                self._connect(5.0)
                break
            except OSError as error:
                if time.monotonic() > until:
                    raise ClusterError(
                        f"the Dask scheduler {self._address} did not come back within {RECONNECT:g} s "
                        f"({_line(error)}); what was finished is kept, the same command continues"
                    ) from None
                time.sleep(0.5)
        lost: list[Event] = [Lost(number, "the scheduler went away", blame=False) for number in self._in_flight]
        self._in_flight = {}
        return lost

    def _count_workers(self) -> None:
        self._workers, self._counted = self.workers, time.monotonic()

    def _ended(self, number: int, future: Any) -> list[Event]:
        if number not in self._in_flight or self._in_flight[number] is not future:
            return []
        del self._in_flight[number]
        if future.status == "finished":
            try:
                results, peak, missing = future.result(timeout=30)
            except (OSError, TimeoutError, CancelledError) as error:
                return [Lost(number, _line(error), blame=False)]
            found: list[Event] = [Found(number, result) for result in results]
            return [*found, Ended(number, peak) if missing is None else Lost(number, missing)]
        if future.status == "error":
            failure = future.exception()
            if isinstance(failure, InputError):
                raise failure
            return [Lost(number, _line(failure))]
        return [Lost(number, f"the task was {future.status}", blame=False)]


def make_runner(job: Job) -> Runner:
    """On a worker: the job, ready to run."""
    return job.runner()


def run_task(runner: Runner, task: Task) -> tuple[list[Answer], int, str | None]:
    """On a worker: what was found, the peak memory, and why the rest is missing."""
    results: list[Answer] = []
    try:
        results.extend(runner.run(task))
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - one sample that fails must not cost the others
        return results, peak_memory(), f"{type(error).__name__}: {error}"
    return results, peak_memory(), None


def _report(over: queue.SimpleQueue[tuple[int, Any]], number: int, future: Any) -> None:
    over.put((number, future))


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
