"""Which sample runs when: batches through the cheap stages first, then what stayed open, hardest last.

An answer may call for further ones, as it does where one sample is asked about several times.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, cast

from mipverify.cluster.executor import Answer, Ended, Executor, Found, Job, Lost, Task

A = TypeVar("A", bound=Answer)

# A batch has to be large enough for dense products and small enough that all workers end together.
SMALLEST_BATCH, LARGEST_BATCH, BATCHES_PER_WORKER = 16, 128, 4

# A sample is given up after so many failures of the worker that had it.
ATTEMPTS = 2

# So many failures without one result are a fault of the program, not of a sample.
HOPELESS = 8


class Schedule(Generic[A]):
    """Runs the samples of a job on an executor and yields their answers.

    The caller stores what it is given before it asks for more. `peak_memory` is the largest resident size of a
    worker in bytes, `failures` counts tasks that were lost.
    then: told of every answer, also of those that a batch leaves open; gives the indices that are to be run now. Those
    that a batch has left open get work of their own. By default these are just what a batch leaves open.
    """

    def __init__(
        self,
        executor: Executor,
        indices: Sequence[int],
        job: Job,
        then: Callable[[A], Sequence[int]] | None = None,
    ):
        self._executor, self._job = executor, job
        self._then = then or (lambda answer: (answer.index,) if answer.open else ())
        self._size = batch_size(len(indices), executor.workers)
        self._batches = list(reversed(split(indices, self._size))) if job.batched else []
        self._waiting: list[int] = []  # for others, to be a batch
        self._hardness: dict[int, float] = {}  # of what batches left open
        # Hardness and index: the easiest comes first.
        self._open = [] if job.batched else [(0.0, int(index)) for index in sorted(indices)]
        self._suspects: list[int] = []  # to be run with nothing else in flight
        self._alone: int | None = None  # number of the task that is
        self._in_flight: dict[int, tuple[Task, float]] = {}  # with the time of submission
        self._missing: dict[int, set[int]] = {}
        self._blamed: Counter[int] = Counter()
        self._spent: dict[int, float] = {}  # seconds of a sample's limit that workers took with them
        self._numbers = 0
        self._results = 0
        self.peak_memory = 0
        self.failures = 0

    def run(self) -> Iterator[list[A]]:
        """Final answers as they arrive, everything that is there at once in one list; empty lists keep time."""
        while self._batches or self._waiting or self._open or self._suspects or self._in_flight:
            self._submit()
            finished: list[A] = []
            for event in self._executor.wait(1.0):
                match event:
                    case Found(number, result):
                        finished += self._found(number, cast(A, result))
                    case Ended(number, peak_memory):
                        self.peak_memory = max(self.peak_memory, peak_memory)
                        finished += self._over(number, "the worker forgot the sample", blame=True)
                    case Lost(number, reason, blame):
                        self.failures += 1
                        finished += self._over(number, reason, blame=blame)
            self._submit()
            yield finished

    def _submit(self) -> None:
        while self._executor.free > 0 and self._alone not in self._in_flight:
            if self._batches or self._worth_a_batch():
                indices, only_cheap = self._batch(), True
            elif self._open:
                indices, only_cheap = (heapq.heappop(self._open)[1],), False
            elif self._suspects and not self._in_flight:
                indices, only_cheap = (self._suspects.pop(),), False
                self._alone = self._numbers + 1
            else:
                return
            self._numbers += 1
            spent = 0.0 if only_cheap else self._spent.get(indices[0], 0.0)
            task = Task(self._numbers, indices, only_cheap, spent)
            self._in_flight[task.number] = task, time.monotonic()
            self._missing[task.number] = set(indices)
            self._executor.submit(task)

    def _worth_a_batch(self) -> bool:
        """Whether enough samples wait for one, or no more of them are on their way."""
        coming = any(task.only_cheap for task, _ in self._in_flight.values())
        return len(self._waiting) >= self._size or (bool(self._waiting) and not coming)

    def _batch(self) -> tuple[int, ...]:
        if self._batches:
            return self._batches.pop()
        batch, self._waiting = tuple(self._waiting[: self._size]), self._waiting[self._size :]
        return batch

    def _found(self, number: int, result: A) -> list[A]:
        if number not in self._in_flight or result.index not in self._missing[number]:
            return []
        self._missing[number].remove(result.index)
        self._results += 1
        left_open = result.open and self._in_flight[number][0].only_cheap
        if left_open:
            self._hardness[result.index] = result.hardness
        self._follow(result)
        return [] if left_open else [result]

    def _follow(self, result: A) -> None:
        """Queue what an answer calls for."""
        for index in self._then(result):
            if index in self._hardness or not self._job.batched:
                heapq.heappush(self._open, (self._hardness.get(index, 0.0), index))
            else:
                self._waiting.append(index)

    def _over(self, number: int, reason: str, *, blame: bool) -> list[A]:
        """Queue again what a task did not deliver, or give up a sample that was the cause too often."""
        task, began = self._in_flight.pop(number, (None, 0.0))
        missing = self._missing.pop(number, set())
        if task is None or not missing:
            return []
        if not blame:
            if task.only_cheap:
                self._batches.append(tuple(sorted(missing)))
            else:
                for index in missing:
                    heapq.heappush(self._open, (float("inf"), index))
            return []
        if self._results == 0 and self.failures >= HOPELESS:
            raise RuntimeError(f"no sample could be verified: {reason}")
        given_up = []
        for index in sorted(missing):
            self._blamed[index] += 1
            certain = task.number == self._alone or (self._executor.exact_blame and len(missing) == 1)
            if certain and not task.only_cheap:
                self._spent[index] = task.spent + time.monotonic() - began
            late = self._spent.get(index, 0.0) >= self._job.timeout
            if certain and (self._blamed[index] >= ATTEMPTS or late):
                given_up.append(cast(A, self._job.given_up(index, reason)))
                self._follow(given_up[-1])
            elif self._blamed[index] >= ATTEMPTS:
                self._suspects.append(index)
            else:
                heapq.heappush(self._open, (float("inf"), index))
        return given_up


def batch_size(count: int, workers: int) -> int:
    """How many of so many samples make a batch, so that each worker gets several."""
    wanted = -(-count // (BATCHES_PER_WORKER * max(workers, 1)))
    return min(max(wanted, SMALLEST_BATCH), LARGEST_BATCH)


def split(indices: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Batches of at most that size."""
    return [tuple(int(i) for i in indices[at : at + size]) for at in range(0, len(indices), size)]
