"""Distances of many samples: every finished one is on disk at once, and the same command goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from mipverify.cluster.executor import Task
from mipverify.cluster.job import as_sent, imported
from mipverify.engine.bisection import INTERRUPTED
from mipverify.engine.distortion import Known, minimum_distortion
from mipverify.engine.sample import other_class
from mipverify.engine.threats.distance import OPTIONS, distance_of_threat
from mipverify.engine.threats.sample import Sample
from mipverify.report.answers import answers
from mipverify.report.configuration import parse_samples
from mipverify.report.database import FILE, publishing
from mipverify.report.distance_store import DISTANCES, DistanceResult, DistanceStore
from mipverify.report.files import Replacing, inputs_of, refuse_overwriting
from mipverify.report.hashes import hash_arrays, hash_network

if TYPE_CHECKING:
    from mipverify.network import Network
    from mipverify.network.model_file import ModelFile
    from mipverify.specification.dataset import Dataset
    from mipverify.specification.preprocessing import Preprocessing

TABLE, SUMMARY = "distances.csv", "distances.json"
LIMITS = ("timeout", "solver", "seed")  # how to look for the answer: none of it changes the question


@dataclass(frozen=True)
class Distances:
    """A run: one dictionary with the columns of DISTANCES for each sample, a summary, and the table that they are in.

    preprocessing: what was done to stored values, in words.
    """

    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    csv: Path
    preprocessing: str


@dataclass(frozen=True)
class DistanceJob:
    """Minimum distortion of the samples of a data set, as workers get it.

    asked: arguments of `minimum_distortion`, and perhaps a threat. known: by sample, what an earlier run has found.
    workers: processes that share the work of one sample.
    """

    network: ModelFile | Network
    data: Dataset
    asked: Mapping[str, Any]
    known: Mapping[int, DistanceResult] = field(default_factory=dict)
    workers: int = 1

    batched = False

    @property
    def timeout(self) -> float:
        return float(self.asked["timeout"])

    def runner(self) -> Measurer:
        """Raises InputError if network and data do not fit each other."""
        return Measurer(self)

    def given_up(self, index: int, reason: str) -> DistanceResult:
        """Nothing but what was known, and why."""
        text = f"given up: {reason}"
        return DistanceResult(index, self.data.label(index), "bounded", 0.0, None, None, 0.0, 0, 0, text)


class Measurer:
    """A job with network and data in memory."""

    def __init__(self, job: DistanceJob):
        self._job = job
        self._network = imported(job.network)
        self._data = job.data.fit_to(self._network.input_shape)

    def __reduce__(self) -> tuple[type[Measurer], tuple[DistanceJob]]:
        return Measurer, (self._job,)

    def run(self, task: Task, stop: Callable[[], bool] | None = None) -> Iterator[DistanceResult]:
        """As `Runner.run`; what an interruption has left of the bounds of a sample is an answer, the last one."""
        for index in task.indices:
            if stop is not None and stop():
                return
            result = self._measure(index, self._job.timeout - task.spent)
            yield result
            if result.reason == INTERRUPTED:
                raise KeyboardInterrupt

    def _measure(self, index: int, timeout: float) -> DistanceResult:
        label, before = self._data.label(index), self._job.known.get(index)
        domain = self._data.preprocessing.domain
        inputs = {"domain": domain, "mean": self._data.mean, "std": self._data.std}
        asked = {**self._job.asked, **inputs, "timeout": timeout, "workers": self._job.workers}
        if before is not None:
            asked["known"] = Known(before.lower, None if before.witness is None else before.witness["input"])
        threat = asked.pop("threat", None)
        if threat is None:
            found = minimum_distortion(self._network, self._data.image(index), label, **asked)
        else:
            sample = Sample.of(self._data, index, label, None, asked["norm"], asked["targets"])
            how = {name: asked[name] for name in OPTIONS if name in asked}
            found = distance_of_threat(self._network, threat, sample, **how)
        return DistanceResult(
            index,
            label,
            found.status,
            found.lower,
            found.upper,
            None if found.witness is None else other_class(found.witness.output, label),
            found.seconds,
            int(found.statistics["questions"]),
            int(found.statistics["nodes"]),
            found.reason,
            found.to_json()["witness"],
            found.trusted,
        )


def run_distances(
    network: str,
    data: str,
    samples: str | None,
    *,
    out: str,
    asked: dict[str, Any],
    preprocessing: Preprocessing | None = None,
    workers: int = 1,
    progress: Callable[[str, str], None] | None = None,
) -> Distances:
    """Minimum distortion of the samples BEGIN:END of a data set; asked: other arguments of `minimum_distortion`, and
    perhaps a `threat`, of which the distances are then shares or radii.

    Writes results.sqlite, distances.csv and distances.json into `out`. Samples whose bounds have not met run again:
    they go on from the bounds and the witness that are there, and keep the better of both answers. Samples are shared
    out among `workers`; where these are more, each sample is worked on by as many as there are for it.
    """
    from mipverify.network import load
    from mipverify.specification import load_dataset

    folder = Path(out)
    names = (TABLE, SUMMARY, FILE)
    loaded, dataset = load(network), load_dataset(data, preprocessing)
    refuse_overwriting([("--out", folder / name) for name in names], inputs_of(loaded, data))
    dataset.fit_to(loaded.input_shape)
    selection = parse_samples(samples, len(dataset))
    with DistanceStore(folder, question(loaded, dataset, asked), asked["gap"]) as store:
        before = {result.index: result for result in store.results(selection)}
        wanted = [index for index in selection if index not in before or before[index].status == "bounded"]
        if wanted:
            known = {index: before[index] for index in wanted if index in before}
            job = DistanceJob(as_sent(loaded), dataset, asked, known, workers=max(workers // len(wanted), 1))
            for done, result in enumerate(answers(job, wanted, workers), 1):
                kept = store.put(result)
                if progress is not None:
                    progress("samples", f"{done} of {len(wanted)}: {kept.index} {kept.status}")
        results = store.results(selection)
    return _publish(folder, results, dataset)


def question(network: Network, data: Dataset, asked: Mapping[str, Any]) -> dict[str, str]:
    """All that a distance depends on, by name; what means the same reads the same."""
    from mipverify.specification.exact import exact_number

    targets, farthest = asked["targets"], asked["max_distance"]
    stated = {
        "network": network.sha256 or hash_network(network),
        "data": hash_arrays(data.stored),
        "labels": hash_arrays(data.labels),
        "norm": str(asked["norm"]),
        **{name: ",".join(value) if isinstance(value, list) else str(value) for name, value in data.record().items()},
        "targets": "all" if targets is None else ",".join(map(str, sorted(set(targets)))),
        "margin": str(exact_number(asked["margin"], "--margin")),
        "gap": repr(float(asked["gap"])),
        "max_distance": "none" if farthest is None else repr(float(farthest)),
    }
    others = {name: str(value) for name, value in asked.items() if name not in (*stated, *LIMITS, "threat")}
    return stated | others | ({"threat": asked["threat"].text} if "threat" in asked else {})


def _publish(folder: Path, results: Sequence[DistanceResult], data: Dataset) -> Distances:
    """Write the table and the summary. Raises StoreError if that is not possible."""
    rows = [DISTANCES.record(result) for result in results]
    summary = {**_summary(results), "preprocessing": data.record()}
    with publishing(folder, "the table"):
        DISTANCES.write_csv(folder / TABLE, results)
        with Replacing(folder / SUMMARY) as file:
            file.write(json.dumps(summary, indent=1, allow_nan=False) + "\n")
    return Distances(rows, summary, folder / TABLE, data.described())


def _summary(results: Sequence[DistanceResult]) -> dict[str, Any]:
    distances = [result.upper for result in results if result.upper is not None]
    counts = {status: sum(r.status == status for r in results) for status in ("optimal", "bounded", "none")}
    return {
        "samples": len(results),
        **counts,
        "distance": {
            "median": median(distances) if distances else None,
            "smallest": min(distances, default=None),
            "largest": max(distances, default=None),
        },
        "median_seconds": median(result.seconds for result in results) if results else 0.0,
    }
