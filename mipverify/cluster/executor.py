"""What all places where samples can run have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from mipverify.errors import MipverifyError


class ClusterError(MipverifyError):
    """The place where samples run cannot be used any more. Finished samples are not affected."""


@dataclass(frozen=True, slots=True)
class Task:
    """Samples that one worker takes together: a batch for the cheap stages, or a single open sample.

    spent: seconds of its time limit that earlier workers have spent on the single sample before they died.
    """

    number: int
    indices: tuple[int, ...]
    only_cheap: bool
    spent: float = 0.0


class Answer(Protocol):
    """What is known about one sample."""

    @property
    def index(self) -> int:
        """Which sample."""

    @property
    def open(self) -> bool:
        """Whether the stages for batches ended without a decision, so that the sample is owed work of its own."""

    @property
    def hardness(self) -> float:
        """How hard an open sample is expected to be; any scale."""


class Runner(Protocol):
    """A job with all that it needs in memory, in the process that works on it."""

    def run(self, task: Task, stop: Callable[[], bool] | None = None) -> Iterator[Answer]:
        """Answers for the samples of a task, in any order; with `only_cheap`, some of them `open`."""


class Job(Protocol):
    """One question asked of many samples; sent to each worker once, and complete: no worker reads a file for it."""

    @property
    def timeout(self) -> float:
        """Seconds for a sample."""

    @property
    def batched(self) -> bool:
        """Whether there are cheap stages for many samples together."""

    def runner(self) -> Runner:
        """Raises InputError if the parts of the question do not fit each other."""

    def given_up(self, index: int, reason: str) -> Answer:
        """The answer for a sample that no worker survived."""


@dataclass(frozen=True, slots=True)
class Found:
    """A sample of a task in flight has its result."""

    number: int
    result: Answer


@dataclass(frozen=True, slots=True)
class Ended:
    """A task is over; every sample of it was found before."""

    number: int
    peak_memory: int = 0  # bytes, largest resident size of the worker so far


@dataclass(frozen=True, slots=True)
class Lost:
    """A task ended early: samples of it that were not found must run again.

    `blame` says whether the samples may be the cause (the worker crashed or raised on them) or not (the connection
    to a cluster was lost).
    """

    number: int
    reason: str
    blame: bool = True


Event = Found | Ended | Lost


class Executor(Protocol):
    """Runs tasks somewhere. Used from one thread: submit while `free` is positive, wait, and close in the end."""

    exact_blame: bool  # whether a lost task that is blamed was the one that the worker was busy with

    @property
    def free(self) -> int:
        """How many more tasks can be taken now."""

    @property
    def workers(self) -> int:
        """How many tasks run side by side."""

    def submit(self, task: Task) -> None:
        """Hand a task over. Raises InputError if the job cannot be run at all, ClusterError if nobody is left."""

    def wait(self, timeout: float) -> list[Event]:
        """All that has happened, after at most `timeout` seconds if nothing has. Raises as `submit` does."""

    def close(self) -> None:
        """Stop at once; tasks in flight are given up."""
