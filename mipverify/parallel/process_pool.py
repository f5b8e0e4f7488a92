"""This process and others that lend it a hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mipverify.parallel.executor import C, R, T, Work
from mipverify.parallel.residents import Home

if TYPE_CHECKING:
    import subprocess
    from multiprocessing.connection import Connection

POLL = 0.005  # seconds between looks at a worker that is not done


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    ready: bool = False
    busy: bool = False
    context: object = None  # the last one it was sent; a reference, so that no other object takes its place
    home: Home = field(default_factory=Home)
    mark: int = 0  # in what it was sent of residents: where those of the work begin


class ProcessPool:
    """This process and `workers - 1` others, which are started by the first `map` and join once they are ready.

    Whatever befalls a worker, its part is done here: a pool changes how long something takes and nothing else.
    """

    def __init__(self, workers: int):
        self._wanted = max(0, workers - 1)
        self._workers: list[_Worker] = []

    @property
    def count(self) -> int:
        """How many items are worked on at once."""
        return 1 + len(self._ready())

    def map(self, work: Work[C, T, R], context: C, items: Sequence[T], stop: Callable[[], bool]) -> list[R | None]:
        """As `Executor.map`: workers get the items after the first, one each; what is left over is done here."""
        self._start()
        results: list[R | None] = [None] * len(items)
        try:
            free = zip(range(1, len(items)), self._ready(), strict=False)
            away = {place: worker for place, worker in free if self._send(worker, work, context, items[place])}
            for place, item in enumerate(items):
                if place not in away:
                    results[place] = work(context, item, stop)
            for place, worker in away.items():
                answer = self._receive(worker, stop)
                if answer is not _STOPPED:
                    results[place] = answer if answer is not _LOST else work(context, items[place], stop)
        finally:
            for worker in [m for m in self._workers if m.busy]:
                self._dismiss(worker)  # an answer that nobody waited for must not be taken for a later one
        return results

    def close(self) -> None:
        """End the others."""
        for worker in list(self._workers):
            self._dismiss(worker)
        self._wanted = 0

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> None:
        from mipverify.parallel.process import start  # most questions need no other process

        while self._wanted:
            self._wanted -= 1
            self._workers.append(_Worker(*start("mipverify.parallel.worker")))

    def _ready(self) -> list[_Worker]:
        for worker in list(self._workers):
            try:
                if not worker.ready and worker.connection.poll():
                    worker.connection.recv()
                    worker.ready = True
            except (EOFError, OSError):
                self._dismiss(worker)
        return [worker for worker in self._workers if worker.ready]

    def _send(self, worker: _Worker, work: Work[C, T, R], context: C, item: T) -> bool:
        worker.busy = True
        try:
            if worker.context is not context:
                worker.home.forget()
                worker.connection.send_bytes(worker.home.dumps(("context", context)))
                worker.context, worker.mark = context, worker.home.mark()
            worker.connection.send_bytes(worker.home.dumps(("work", (work, item))))
        except OSError:
            self._dismiss(worker)
            return False
        return True

    def _receive(self, worker: _Worker, stop: Callable[[], bool]) -> Any:
        try:
            while not worker.connection.poll(POLL):
                if stop():
                    self._dismiss(worker)
                    self._wanted += 1  # another one takes its place at the next `map`: a stop may end a stage only
                    return _STOPPED
            data = worker.connection.recv_bytes()
        except (EOFError, OSError):
            self._dismiss(worker)
            return _LOST
        answer = worker.home.loads(data)
        worker.home.forget(worker.mark)
        worker.busy = False
        return answer

    def _dismiss(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.kill()
        worker.process.wait()
        worker.connection.close()


_STOPPED, _LOST = object(), object()
