"""A run in figures: counts, the interval of the adversarial error, and the tables that others read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipverify.engine.sample import VERDICTS, SampleResult
from mipverify.report.columns import SAMPLES
from mipverify.report.configuration import RunConfiguration
from mipverify.report.files import Replacing
from mipverify.report.table import Table


@dataclass(frozen=True)
class Counts:
    """How many samples ended how. All errors are fractions of `samples`."""

    samples: int
    misclassified: int
    holds: int
    violated: int
    unknown: int

    @classmethod
    def of(cls, results: Sequence[SampleResult]) -> Counts:
        found = Counter(result.verdict for result in results)
        return cls(len(results), *(found[verdict] for verdict in VERDICTS))

    @property
    def clean_error(self) -> float:
        return self.misclassified / self.samples if self.samples else 0.0

    @property
    def lower(self) -> float:
        """What the adversarial error is at least: samples known to be wrong, or wrong somewhere in the set."""
        return (self.misclassified + self.violated) / self.samples if self.samples else 0.0

    @property
    def upper(self) -> float:
        """What the adversarial error is at most: every sample that is not proven."""
        return (self.samples - self.holds) / self.samples if self.samples else 0.0


def summarize(
    results: Sequence[SampleResult],
    configuration: RunConfiguration,
    *,
    selection: range,
    seconds: float,
    sessions: int,
    version: str,
    options: dict[str, Any],
    peak_memory: int = 0,
) -> dict[str, Any]:
    """The contents of `summary.json`. `seconds` is wall time of all sessions, `peak_memory` bytes of one worker."""
    counts = Counts.of(results)
    stages = Counter(result.stage for result in results)
    spent: Counter[str] = Counter()
    for result in results:
        spent[result.stage] += result.seconds  # type: ignore[assignment]
    return {
        "samples": counts.samples,
        "misclassified": counts.misclassified,
        "holds": counts.holds,
        "violated": counts.violated,
        "unknown": counts.unknown,
        "clean_error": counts.clean_error,
        "adversarial_error": {"lower": counts.lower, "upper": counts.upper},
        "seconds": seconds,
        "sessions": sessions,
        "seconds_of_samples": sum(result.seconds for result in results),
        "stages": {
            stage: {"samples": number, "seconds": float(spent[stage])} for stage, number in stages.most_common()
        },
        "trusted": dict(Counter(name for result in results for name in result.trusted).most_common()),
        "proofs": proofs(results),
        "nodes": sum(result.nodes for result in results),
        "unstable": mean_unstable(results),
        "peak_memory_of_a_worker": peak_memory or None,
        "first": selection.start,
        "last": selection.stop - 1,
        "network": {"path": configuration.network, "sha256": configuration.network_sha256},
        "data": {"path": configuration.data, "sha256": configuration.data_sha256},
        "eps": configuration.eps,
        "norm": configuration.norm,
        "threat": configuration.threat,
        "arithmetic": configuration.arithmetic,
        "preprocessing": configuration.preprocessing,
        "options": options,
        "version": version,
    }


def proofs(results: Sequence[SampleResult]) -> dict[str, Any] | None:
    """How many proofs a run keeps, what checkers made of them, and which; None where it was not asked for any."""
    states = Counter(result.proof_state for result in results if result.verdict == "holds")
    if set(states) <= {""}:
        return None
    checkers = Counter(result.proof_check for result in results if result.proof_state == "verified")
    return {
        "kept": states.total() - states[""],
        "verified": states["verified"],
        "rejected": states["rejected"],
        "without": states[""],
        "verified_by": dict(checkers.most_common()),
    }


def mean_unstable(results: Sequence[SampleResult]) -> list[float]:
    """Mean number of unstable ReLUs per layer, over the samples for which it is known."""
    known = [result.unstable for result in results if result.unstable]
    layers = max((len(counts) for counts in known), default=0)
    return [
        sum(counts[layer] for counts in known if layer < len(counts)) / max(sum(layer < len(c) for c in known), 1)
        for layer in range(layers)
    ]


def write_tables(
    directory: Path,
    summary: dict[str, Any],
    results: Sequence[SampleResult],
    table: Table[SampleResult] = SAMPLES,
) -> list[Path]:
    """`samples.csv`, `summary.json` and, where pyarrow is installed, `samples.parquet`; returns their paths.

    Each file is replaced as a whole: a reader never sees half of one. table: the columns of the samples.
    """
    written = [directory / "samples.csv", directory / "summary.json"]
    table.write_csv(written[0], results)
    with Replacing(written[1]) as file:
        json.dump(summary, file, indent=2, allow_nan=False)
        file.write("\n")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return written
    path = directory / "samples.parquet"
    with Replacing(path, binary=True) as file:
        pyarrow.parquet.write_table(table.arrow(results), file)
    return [*written, path]
