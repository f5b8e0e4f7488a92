"""What all places where samples can run have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mipverify.errors import MipverifyError

if TYPE_CHECKING:
    from mipverify.engine.sample import SampleResult


class ClusterError(MipverifyError):
    """The place where samples run cannot be used any more. Finished samples are not affected."""


@dataclass(frozen=True, slots=True)
class Task:
    """Samples that one worker takes together: a batch for the cheap stages, or a single open sample."""

    number: int
    indices: tuple[int, ...]
    only_cheap: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A sample of a task in flight has its result."""

    number: int
    result: SampleResult


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
