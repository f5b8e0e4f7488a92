"""A run in figures: counts, the interval of the adversarial error, and the tables that others read."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipverify.engine.sample import VERDICTS, SampleResult
from mipverify.report.configuration import RunConfiguration
from mipverify.report.files import Replacing

COLUMNS = (
    "index",
    "label",
    "predicted",
    "verdict",
    "stage",
    "seconds",
    "margin_lower_bound",
    "adversarial_label",
    "unstable",
    "nodes",
    "reason",
    "trusted",
)


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
        "nodes": sum(result.nodes for result in results),
        "unstable": mean_unstable(results),
        "peak_memory_of_a_worker": peak_memory or None,
        "first": selection.start,
        "last": selection.stop - 1,
        "network": {"path": configuration.network, "sha256": configuration.network_sha256},
        "data": {"path": configuration.data, "sha256": configuration.data_sha256},
        "eps": configuration.eps,
        "norm": configuration.norm,
        "preprocessing": json.loads(configuration.settings),
        "options": options,
        "version": version,
    }


def mean_unstable(results: Sequence[SampleResult]) -> list[float]:
    """Mean number of unstable ReLUs per layer, over the samples for which it is known."""
    known = [result.unstable for result in results if result.unstable]
    layers = max((len(counts) for counts in known), default=0)
    return [
        sum(counts[layer] for counts in known if layer < len(counts)) / max(sum(layer < len(c) for c in known), 1)
        for layer in range(layers)
    ]


def record(result: SampleResult) -> dict[str, Any]:
    """One row of the table of samples."""
    return {
        "index": result.index,
        "label": result.label,
        "predicted": result.predicted if result.predicted >= 0 else None,
        "verdict": result.verdict,
        "stage": result.stage,
        "seconds": round(result.seconds, 6),
        "margin_lower_bound": result.margin_lower_bound,
        "adversarial_label": result.adversarial_label,
        "unstable": " ".join(map(str, result.unstable)),
        "nodes": result.nodes,
        "reason": result.reason,
        "trusted": "; ".join(result.trusted),
    }


def write_tables(directory: Path, summary: dict[str, Any], results: Sequence[SampleResult]) -> list[Path]:
    """`samples.csv`, `summary.json` and, where pyarrow is installed, `samples.parquet`; returns their paths.

    Each file is replaced as a whole: a reader never sees half of one.
    """
    records = [record(result) for result in results]
    written = [directory / "samples.csv", directory / "summary.json"]
    with Replacing(written[0]) as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
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
        pyarrow.parquet.write_table(arrow_table(results), file)
    return [*written, path]


def arrow_table(results: Sequence[SampleResult]) -> Any:
    """The table of samples for pyarrow, with lists where the CSV file has text."""
    import pyarrow as pa

    integer, text = pa.int64(), pa.string()
    schema = pa.schema(
        {
            **dict.fromkeys(COLUMNS, text),
            **dict.fromkeys(("index", "label", "predicted", "adversarial_label", "nodes"), integer),
            **dict.fromkeys(("seconds", "margin_lower_bound"), pa.float64()),
            "unstable": pa.list_(integer),
            "trusted": pa.list_(text),
        }
    )
    rows = [record(r) | {"unstable": list(r.unstable), "trusted": list(r.trusted)} for r in results]
    return pa.Table.from_pylist(rows, schema=schema)
