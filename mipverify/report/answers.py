"""Answers for the samples of a run, as they arrive, from this process or from others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mipverify.cluster import Schedule, open_executor
from mipverify.cluster.executor import Task


def answers(job: Any, wanted: Sequence[int], workers: int) -> Iterator[Any]:
    """Answers of a job for samples: by this process for one worker, else by others."""
    if min(workers, len(wanted)) <= 1:
        runner = job.runner()
        for number, index in enumerate(wanted):
            yield from runner.run(Task(number, (index,), only_cheap=False))
        return
    executor = open_executor(job, workers=min(workers, len(wanted)))
    try:
        for results in Schedule[Any](executor, wanted, job).run():
            yield from results
    finally:
        executor.close()
