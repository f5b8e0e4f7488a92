"""Samples run in this process, on a thread beside the one that stores results."""

from __future__ import annotations

import queue
import threading

from mipverify.cluster.executor import Ended, Event, Found, Job, Lost, Task
from mipverify.cluster.job import peak_memory
from mipverify.errors import InputError


class HereExecutor:
    """One task at a time in this process. Nothing is isolated: a native crash ends the run."""

    exact_blame = True
    workers = 1

    def __init__(self, job: Job):
        self._job = job
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
        self._busy = 0
        self._stopped = threading.Event()
        threading.Thread(target=self._work, daemon=True, name="mipverify-worker").start()

    @property
    def free(self) -> int:
        return 1 - self._busy

    def submit(self, task: Task) -> None:
        self._busy += 1
        self._tasks.put(task)

    def wait(self, timeout: float) -> list[Event]:
        events: list[Event] = []
        try:
            item = self._events.get(timeout=timeout)
            while True:
                if isinstance(item, Exception):
                    raise item
                events.append(item)
                self._busy -= not isinstance(item, Found)
                item = self._events.get_nowait()
        except queue.Empty:
            return events

    def close(self) -> None:
        self._stopped.set()
        self._tasks.put(None)

    def _work(self) -> None:
        try:
            runner = self._job.runner()
        except Exception as error:  # noqa: BLE001 - raised again by wait()
            self._events.put(error)
            return
        while (task := self._tasks.get()) is not None and not self._stopped.is_set():
            try:
                for result in runner.run(task, self._stopped.is_set):
                    self._events.put(Found(task.number, result))
                self._events.put(Ended(task.number, peak_memory()))
            except InputError as error:
                self._events.put(error)
            except Exception as error:  # noqa: BLE001 - one sample that fails must not cost the others
                self._events.put(Lost(task.number, f"{type(error).__name__}: {error}"))
