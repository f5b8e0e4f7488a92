"""How far a run is, as it goes on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mipverify.engine.sample import VERDICTS, SampleResult, SampleVerdict
from mipverify.report.radii import Ladder
from mipverify.report.summary import Counts


@dataclass(frozen=True)
class Status:
    """A run in progress. `counts.samples` is what is finished, `total` what was asked for.

    With several radii both count every sample at each of them; radii: the status of each, by radius.
    """

    counts: Counts
    total: int
    elapsed: float
    remaining: float | None
    radii: tuple[tuple[str, Status], ...] = ()

    @property
    def lower(self) -> float:
        """What the adversarial error of all samples asked for is at least."""
        return (self.counts.misclassified + self.counts.violated) / self.total

    @property
    def upper(self) -> float:
        """What it is at most."""
        return 1.0 - self.counts.holds / self.total


class Tally:
    """Counts what is decided about samples at all radii, and tells how far the run is."""

    def __init__(self, ladder: Ladder, samples: Sequence[int], tell: Callable[[Status], None] | None):
        self._ladder, self._samples, self._tell = ladder, samples, tell
        self._verdicts: dict[int, tuple[SampleVerdict | None, ...]] = {}
        self._counts: list[Counter[SampleVerdict | None]] = [Counter() for _ in ladder.radii]
        for sample in samples:
            self._count(sample)
        self._before = self._finished()
        self._began = time.monotonic()

    def add(self, results: Sequence[SampleResult]) -> None:
        """Count again the samples that results are about, which the ladder knows."""
        for sample in {result.index for result in results}:
            self._count(sample)
        if self._tell is not None:
            self._tell(self._status())

    def _count(self, sample: int) -> None:
        found = self._ladder.verdicts(sample)
        for counts, new, old in zip(self._counts, found, self._verdicts.get(sample, (None,) * len(found)), strict=True):
            counts[new] += 1
            counts[old] -= 1
        self._verdicts[sample] = found

    def _finished(self) -> int:
        return sum(counts[verdict] for counts in self._counts for verdict in VERDICTS)

    def _status(self) -> Status:
        finished, total = self._finished(), len(self._samples) * len(self._counts)
        elapsed = time.monotonic() - self._began
        done = finished - self._before
        remaining = elapsed / done * (total - finished) if done else None
        each = [Counts(sum(c[v] for v in VERDICTS), *(c[v] for v in VERDICTS)) for c in self._counts]
        radii = tuple(
            (eps, Status(counts, len(self._samples), elapsed, remaining))
            for eps, counts in zip(self._ladder.radii, each, strict=True)
        )
        whole = Counts(finished, *(sum(c[v] for c in self._counts) for v in VERDICTS))
        return Status(whole, total, elapsed, remaining, radii if len(radii) > 1 else ())
