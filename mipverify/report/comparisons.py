"""Two networks compared around many samples: every finished one is on disk at once, and the same command goes on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from mipverify.cluster.executor import Task
from mipverify.cluster.job import as_sent, imported
from mipverify.engine.bisection import INTERRUPTED
from mipverify.engine.difference import LEAST, compare
from mipverify.engine.verdict import Verdict
from mipverify.network.pair import pair
from mipverify.report.answers import answers
from mipverify.report.comparison_store import COMPARISONS, OPEN, VERDICTS, ComparisonResult, ComparisonStore
from mipverify.report.configuration import parse_samples
from mipverify.report.database import FILE, publishing
from mipverify.report.files import Replacing, inputs_of, refuse_overwriting
from mipverify.report.hashes import hash_arrays, hash_network
from mipverify.specification.exact import canonical, exact_number
from mipverify.specification.perturbation import Perturbation

if TYPE_CHECKING:
    from mipverify.network import Network
    from mipverify.network.model_file import ModelFile
    from mipverify.specification.dataset import Dataset
    from mipverify.specification.preprocessing import Preprocessing

TABLE, SUMMARY, PAGE = "comparisons.csv", "comparisons.json", "comparisons.html"
ASKED = ("eps", "norm", "within", "same_class", "gap")  # the question; the rest is how to look for the answer


@dataclass(frozen=True)
class Comparisons:
    """A run: what is known of each sample, a summary, and the page if it is kept.

    preprocessing: what was done to stored values, in words.
    """

    results: tuple[ComparisonResult, ...]
    summary: dict[str, Any]
    page: Path | None
    preprocessing: str


@dataclass(frozen=True)
class ComparisonJob:
    """The comparison of two networks around samples of a data set, as workers get it.

    asked: arguments of `compare`, by name. workers: processes that share the work of one sample.
    """

    networks: tuple[ModelFile | Network, ModelFile | Network]
    data: Dataset
    asked: Mapping[str, Any]
    workers: int = 1

    batched = False

    @property
    def timeout(self) -> float:
        return float(self.asked["timeout"])

    def runner(self) -> Comparer:
        """Raises InputError if networks and data do not fit each other."""
        return Comparer(self)

    def given_up(self, index: int, reason: str) -> ComparisonResult:
        """Nothing, and why."""
        plain = self.asked["within"] is None and not self.asked["same_class"]
        verdict, lower = ("bounded", 0.0) if plain else ("unknown", None)
        none = (None,) * 5
        return ComparisonResult(
            index, self.data.label(index), verdict, lower, *none, "none", 0.0, 0, f"given up: {reason}"
        )


class Comparer:
    """A job with networks and data in memory."""

    def __init__(self, job: ComparisonJob):
        self._job = job
        self._networks = imported(job.networks[0]), imported(job.networks[1])
        self._data = job.data.fit_to(self._networks[0].input_shape)

    def __reduce__(self) -> tuple[type[Comparer], tuple[ComparisonJob]]:
        return Comparer, (self._job,)

    def run(self, task: Task, stop: Callable[[], bool] | None = None) -> Iterator[ComparisonResult]:
        """As `Runner.run`; what an interruption has left of the bounds of a sample is an answer, the last one."""
        for index in task.indices:
            if stop is not None and stop():
                return
            result = self._compare(index, self._job.timeout - task.spent)
            yield result
            if result.reason == INTERRUPTED:
                raise KeyboardInterrupt

    def _compare(self, index: int, timeout: float) -> ComparisonResult:
        asked, data = self._job.asked, self._data
        around = Perturbation.around(
            data.image(index), norm=asked["norm"], domain=data.preprocessing.domain, mean=data.mean, std=data.std
        )
        how = {name: value for name, value in asked.items() if name not in ASKED}
        question = asked["eps"], asked["within"], asked["same_class"], asked["gap"]
        found = compare(*self._networks, around, *question, **{**how, "timeout": timeout, "workers": self._job.workers})
        lower, upper, stage = None, None, "search"
        if isinstance(found, Verdict):
            word, stage = str(found.verdict), found.stage
        else:
            word, lower = str(found.status), found.lower
            upper = found.upper if np.isfinite(found.upper) else None
        output, difference, one, two = None, None, None, None
        if found.witness is not None:
            first, second = np.split(np.asarray(found.witness.output, np.float64).reshape(-1), 2)
            apart = np.abs(first - second)
            output, difference = int(apart.argmax()), float(apart.max())
            one, two = int(first.argmax()), int(second.argmax())
        nodes, seconds = int(found.statistics["nodes"]), found.seconds
        witness, trusted = found.to_json()["witness"], found.trusted
        own = index, data.label(index), word, lower, upper, output, difference, one, two
        return ComparisonResult(*own, stage, seconds, nodes, found.reason, witness, trusted)


def run_comparisons(
    networks: tuple[str, str],
    data: str,
    samples: str | None,
    *,
    out: str | None,
    asked: dict[str, Any],
    preprocessing: Preprocessing | None = None,
    workers: int = 1,
    progress: Callable[[str, str], None] | None = None,
) -> Comparisons:
    """Compare two networks around the samples BEGIN:END of a data set; asked: other arguments of `compare`, by name.

    Writes results.sqlite, comparisons.csv, comparisons.json and comparisons.html into `out`; without it nothing is
    kept. Samples that are undecided run again, and keep the better of both answers.
    """
    from mipverify.network import load
    from mipverify.specification import load_dataset

    both = load(networks[0]), load(networks[1])
    pair(*both)  # refused before anything is begun, if they do not fit
    dataset = load_dataset(data, preprocessing)
    dataset.fit_to(both[0].input_shape)
    selection = parse_samples(samples, len(dataset))
    if out is not None:
        written = [("--out", Path(out) / name) for name in (TABLE, SUMMARY, PAGE, FILE)]
        refuse_overwriting(written, [*inputs_of(both[0], data), *inputs_of(both[1], data)])
    with tempfile.TemporaryDirectory() if out is None else nullcontext(out) as directory:
        folder = Path(directory)
        with ComparisonStore(folder, question(both, dataset, asked), asked["gap"], LEAST) as store:
            before = {result.index: result for result in store.results(selection)}
            wanted = [index for index in selection if index not in before or before[index].verdict in OPEN]
            each = max(workers // max(len(wanted), 1), 1)
            job = ComparisonJob((as_sent(both[0]), as_sent(both[1])), dataset, asked, each)
            for done, result in enumerate(answers(job, wanted, workers) if wanted else (), 1):
                kept = store.put(result)
                if progress is not None:
                    progress("samples", f"{done} of {len(wanted)}: {kept.index} {kept.verdict}")
            results = tuple(store.results(selection))
        found = Comparisons(results, _summary(results, networks, data, asked, dataset), None, dataset.described())
        return found if out is None else _publish(folder, found, dataset, both[0])


def question(networks: Sequence[Network], data: Dataset, asked: Mapping[str, Any]) -> dict[str, str]:
    """All that an answer depends on, by name; what means the same reads the same."""
    within = asked["within"]
    return {
        "network": networks[0].sha256 or hash_network(networks[0]),
        "other": networks[1].sha256 or hash_network(networks[1]),
        "data": hash_arrays(data.stored),
        "labels": hash_arrays(data.labels),
        **{name: ",".join(value) if isinstance(value, list) else str(value) for name, value in data.record().items()},
        "eps": canonical(exact_number(asked["eps"], "--eps")),
        "norm": str(asked["norm"]),
        "within": "none" if within is None else canonical(exact_number(within, "--within")),
        "same_class": str(bool(asked["same_class"])),
        "gap": repr(float(asked["gap"])),
    }


def _summary(
    results: Sequence[ComparisonResult],
    networks: Sequence[str],
    data: str,
    asked: Mapping[str, Any],
    dataset: Dataset,
) -> dict[str, Any]:
    """Counts and the worst sample; verdict: violated where any sample is, undecided where any is."""
    worst = asked["within"] is None and not asked["same_class"]
    words = VERDICTS[:2] if worst else VERDICTS[2:]
    counts = {word: sum(result.verdict == word for result in results) for word in words}
    verdict = next((word for word in ("violated", "unknown", "bounded") if counts.get(word)), words[0])
    found: dict[str, Any] = {"verdict": verdict, "samples": len(results), **counts}
    if worst and results:
        farthest = max(results, key=lambda result: result.lower or 0.0)
        uppers = [result.upper for result in results]
        upper = None if None in uppers else max(value for value in uppers if value is not None)
        found["difference"] = {"lower": farthest.lower, "upper": upper, "index": farthest.index}
        found["difference"]["median"] = median(result.lower or 0.0 for result in results)
    return {
        **found,
        "median_seconds": median(result.seconds for result in results) if results else 0.0,
        "seconds": sum(result.seconds for result in results),
        "networks": list(networks),
        "data": data,
        **{name: value for name, value in asked.items() if name in ASKED},
        "preprocessing": dataset.record(),
    }


def _publish(folder: Path, found: Comparisons, data: Dataset, network: Network) -> Comparisons:
    """Write the table, the summary and the page. Raises StoreError if that is not possible."""
    from mipverify.report.comparison_page import write_page

    with publishing(folder, "the table"):
        COMPARISONS.write_csv(folder / TABLE, found.results)
        with Replacing(folder / SUMMARY) as file:
            file.write(json.dumps(found.summary, indent=1, allow_nan=False) + "\n")
        write_page(folder / PAGE, found, data, network)
    return Comparisons(found.results, found.summary, folder / PAGE, found.preprocessing)
