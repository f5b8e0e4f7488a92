"""Time and memory: when a question must stop, and what each stage took."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mipverify.proof.parts import never


@dataclass
class Clock:
    """Counts down from `limit` seconds; collects the seconds of each stage in `stages`. stop: ends it before."""

    limit: float
    started: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)
    stop: Callable[[], bool] = never

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    def left(self) -> float:
        """Seconds until the limit, not below zero."""
        return max(0.0, self.limit - self.elapsed())

    def cancel(self) -> None:
        """Let the limit have passed."""
        self.limit = 0.0

    def over(self) -> bool:
        """Whether the limit has passed, or someone wants it to stop."""
        return self.left() <= 0 or self.stop()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block under `name`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.count(name, time.perf_counter() - begin)

    def count(self, name: str, seconds: float) -> None:
        """Count seconds under `name`."""
        self.stages[name] = self.stages.get(name, 0.0) + seconds


@dataclass(frozen=True)
class Deadline:
    """When a part of the work on a question must end: `end` seconds after its clock started, or at its limit."""

    clock: Clock
    end: float = math.inf

    def left(self) -> float:
        """Seconds until then, not below zero."""
        return max(0.0, min(self.end - self.clock.elapsed(), self.clock.left()))

    def over(self) -> bool:
        """Whether it has passed."""
        return self.clock.elapsed() > self.end or self.clock.over()

    def within(self, seconds: float = math.inf, *, share: float = 1.0) -> Deadline:
        """An earlier one: this share of the time that is left, and at most so many seconds."""
        now = self.clock.elapsed()
        end = self.end if share == 1.0 else now + share * self.left()
        return Deadline(self.clock, min(end, now + seconds))

    @property
    def whole(self) -> Deadline:
        """That of the question itself."""
        return Deadline(self.clock)


def cap_memory(limit: int) -> None:
    """Let allocations fail from where this process has taken `limit` more bytes of address space, until it ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    wanted = min(pages * resource.getpagesize() + limit, sys.maxsize)  # the largest number that the call takes
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
