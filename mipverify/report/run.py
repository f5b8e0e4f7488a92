"""Exact adversarial accuracy of a whole test set, in a directory that survives interruptions."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mipverify import __version__
from mipverify.cluster import SampleJob, Schedule, open_executor
from mipverify.cluster.job import as_sent
from mipverify.engine.sample import VERDICTS, SampleResult
from mipverify.errors import InputError
from mipverify.parallel import cores
from mipverify.report.configuration import ARITHMETIC, RunConfiguration, canonical_eps, parse_samples
from mipverify.report.database import FILE, publishing
from mipverify.report.files import inputs_of, refuse_overwriting
from mipverify.report.hashes import hash_arrays, hash_network
from mipverify.report.proofs import forget_proofs, keep_proofs, without_proof
from mipverify.report.result import AccuracyResult
from mipverify.report.store import RunStore
from mipverify.report.summary import Counts, summarize, write_tables

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from mipverify.network import Network
    from mipverify.specification.dataset import Dataset
    from mipverify.specification.normalization import Normalization
    from mipverify.specification.preprocessing import Preprocessing

WRITTEN = (FILE, "samples.csv", "samples.parquet", "summary.json", "report.html")  # into the folder of a run


@dataclass(frozen=True)
class Status:
    """A run in progress. `counts.samples` is what is finished, `total` what was asked for."""

    counts: Counts
    total: int
    elapsed: float
    remaining: float | None

    @property
    def lower(self) -> float:
        """What the adversarial error of all samples asked for is at least."""
        return (self.counts.misclassified + self.counts.violated) / self.total

    @property
    def upper(self) -> float:
        """What it is at most."""
        return 1.0 - self.counts.holds / self.total


@dataclass(frozen=True)
class Limits:
    """How to look for the answers; none of it but `arithmetic` changes the question, so that a run may go on with other
    values."""

    timeout: float = 120.0
    workers: int | None = None
    solver: str = "auto"
    seed: int = 0
    cluster: str | None = None
    retry_unknown: bool = False
    verifier: str = SampleJob.verifier
    proofs: bool = False
    arithmetic: str = "real"

    def resolved_workers(self) -> int:
        """The number of workers, by default one for each core that this process may use."""
        return cores() if self.workers is None else self.workers

    def options(self) -> dict[str, Any]:
        """What the store notes about a session."""
        return {
            "timeout": self.timeout,
            "workers": self.resolved_workers(),
            "solver": self.solver,
            "seed": self.seed,
            "cluster": self.cluster,
            "retry_unknown": self.retry_unknown,
            "proofs": self.proofs,
        }


def adversarial_accuracy(
    network: Network | str | Path,
    images: ArrayLike,
    labels: ArrayLike,
    eps: str | float,
    *,
    norm: str = "linf",
    domain: tuple[object, object] | None = (0, 1),
    mean: object = 0,
    std: object = 1,
    out: str | Path | None = None,
    timeout: float = 120.0,
    workers: int | None = None,
    solver: str = "auto",
    seed: int = 0,
    cluster: str | None = None,
    retry_unknown: bool = False,
    class_names: Sequence[str] = (),
    progress: Callable[[Status], None] | None = None,
    arithmetic: str = "real",
) -> AccuracyResult:
    """Decide for every sample whether any input within `eps` is classified otherwise than by its label.

    network   a Network or the path of an ONNX file
    images    (N, ...) with values in the domain, as many values each as the network takes
    labels    (N,) integers
    eps       radius; a string is read exactly, a float as the shortest decimal that means it
    domain    smallest and largest legal value, read as exactly as `eps`; None for no limits
    mean, std the network takes (x - mean) / std: a number, or one for each channel
    out       directory that keeps the results, so that the same call goes on where it stopped; also receives the
              tables and the page. Nothing is kept without it
    workers   local processes, by default one for each core; 0 runs in this process
    timeout   seconds for each sample
    cluster   address of a Dask scheduler, or `local`
    class_names  one for each class, for the page and the result
    arithmetic  what `holds` is about: the real-valued function, or with `float32` every evaluation in float32

    Raises InputError if the arguments do not fit each other or `out` holds a run with another question.
    """
    import numpy as np

    from mipverify.network import load
    from mipverify.network.deployed import in_arithmetic
    from mipverify.network.snapshot import snapshot
    from mipverify.network.validation import unit_box, validated
    from mipverify.specification.dataset import Dataset
    from mipverify.specification.preprocessing import Preprocessing

    loaded = in_arithmetic(load(network) if isinstance(network, str | Path) else snapshot(network), arithmetic)
    given = Preprocessing.of(domain=domain, mean=mean, std=std)
    pixels, classes = np.asarray(images), np.asarray(labels)
    if classes.shape != (len(pixels),) or not np.issubdtype(classes.dtype, np.integer):
        raise InputError(f"labels: {len(pixels)} integers are needed, not {classes.dtype} of shape {classes.shape}")
    dataset = Dataset(pixels, classes.astype(np.int64), "in memory", "in memory", hash_arrays(pixels), given)
    configuration = RunConfiguration(
        network=loaded.path or "in memory",
        network_sha256=loaded.sha256 or hash_network(loaded),
        data="in memory",
        data_sha256=dataset.sha256,
        labels_sha256=hash_arrays(dataset.labels),
        eps=canonical_eps(str(eps)),
        norm=norm,
        settings=_settings(dataset, loaded.arithmetic),
    )
    job = SampleJob(as_sent(loaded), dataset, configuration.eps, timeout, solver, seed, arithmetic=loaded.arithmetic)
    limits = Limits(timeout, workers, solver, seed, cluster, retry_unknown, arithmetic=loaded.arithmetic)
    if loaded.module is not None:  # workers get what was traced of it
        validated(loaded, unit_box(loaded))
    with tempfile.TemporaryDirectory() if out is None else nullcontext(str(out)) as directory:
        result = _run(job, loaded, dataset, configuration, None, Path(directory), limits, progress, class_names)
        if out is None:
            return replace(result, directory=None)
        publish(result, dataset, loaded)
        return result


def run_report(
    network: str,
    data: str,
    eps: str,
    *,
    out: str,
    limits: Limits,
    norm: str = "linf",
    samples: str | None = None,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] = (),
    progress: Callable[[Status], None] | None = None,
) -> AccuracyResult:
    """The same from files, for the command line: also writes the tables and the page. `samples` as in 0:500."""
    from mipverify.network import load
    from mipverify.network.deployed import in_arithmetic
    from mipverify.specification import load_dataset

    radius = canonical_eps(eps)
    dataset = load_dataset(data, preprocessing)
    loaded = in_arithmetic(load(network), limits.arithmetic)
    refuse_overwriting([("--out", Path(out) / name) for name in WRITTEN], inputs_of(loaded, data))
    configuration = RunConfiguration(
        network=network,
        network_sha256=loaded.sha256 or hash_network(loaded),
        data=data,
        data_sha256=dataset.sha256,
        labels_sha256=hash_arrays(dataset.labels),
        eps=radius,
        norm=norm,
        settings=_settings(dataset, loaded.arithmetic),
    )
    how = limits.timeout, limits.solver, limits.seed, limits.verifier, limits.proofs
    job = SampleJob(as_sent(loaded), dataset, radius, *how, arithmetic=loaded.arithmetic)
    result = _run(job, loaded, dataset, configuration, samples, Path(out), limits, progress, class_names)
    publish(result, dataset, loaded)
    return result


def publish(result: AccuracyResult, data: Dataset, network: Network) -> None:
    """Write the tables and the page of a run into its directory. Raises StoreError if that is not possible."""
    from mipverify.report.page import write_page
    from mipverify.specification.normalization import Normalization

    assert result.directory is not None
    with publishing(result.directory, "the report"):
        write_tables(result.directory, result.summary, result.samples)
        fitted = data.fit_to(network.input_shape)
        shown = _as_pixels(result.samples, Normalization.of(fitted.mean, fitted.std, fitted.image_shape))
        page = result.directory / "report.html"
        stored, names = data.image_shape, result.class_names
        words = result.preprocessing
        write_page(page, result.summary, shown, fitted.images, stored, preprocessing=words, class_names=names)


def _as_pixels(samples: tuple[SampleResult, ...], normalization: Normalization | None) -> tuple[SampleResult, ...]:
    """Samples whose counterexamples look like the images of the data, for the page."""
    if normalization is None:
        return samples
    return tuple(
        sample
        if sample.adversarial is None
        else replace(sample, adversarial=normalization.undone(sample.adversarial).astype("f4"))
        for sample in samples
    )


def _run(
    job: SampleJob,
    network: Network,
    data: Dataset,
    configuration: RunConfiguration,
    samples: str | None,
    directory: Path,
    limits: Limits,
    progress: Callable[[Status], None] | None,
    class_names: Sequence[str] = (),
) -> AccuracyResult:
    if configuration.norm != "linf":
        raise InputError(f"--norm {configuration.norm}: a report can be made for linf only")
    data.fit_to(network.input_shape)
    selection = parse_samples(samples, len(data))
    _check_labels(data.labels, selection, network.output_size)
    if class_names and len(class_names) != network.output_size:
        raise InputError(f"{len(class_names)} names of classes, but the network has {network.output_size} outputs")
    options = {**limits.options(), "samples": [selection.start, selection.stop], "class_names": list(class_names)}
    with RunStore(directory, configuration, version=__version__, options=options) as store:
        finished = store.finished(retry_unknown=limits.retry_unknown)
        if store.sessions() == 1:
            forget_proofs(directory)
        if limits.proofs:
            finished -= without_proof(directory, store.results(selection))
        wanted = [index for index in selection if index not in finished]
        peak_memory = 0
        if wanted:
            tally = _Tally([r for r in store.results(selection) if r.index in finished], selection, progress)
            peak_memory = _verify(job, wanted, limits, store, tally, directory)
        store.finish(peak_memory)
        results = tuple(store.results(selection))
        summary = summarize(
            results,
            configuration,
            selection=selection,
            seconds=store.seconds(),
            sessions=store.sessions(),
            version=__version__,
            options=options,
            peak_memory=store.peak_memory(),
        )
    fitted = data.fit_to(network.input_shape)
    return AccuracyResult(summary, results, directory, data.described(), fitted, tuple(class_names))


def _verify(job: SampleJob, wanted: list[int], limits: Limits, store: RunStore, tally: _Tally, directory: Path) -> int:
    """Run samples and store what comes back; returns the peak memory of a worker."""
    workers = min(limits.resolved_workers(), len(wanted))
    executor = open_executor(job, workers=workers, cluster=limits.cluster)
    try:
        schedule = Schedule[SampleResult](executor, wanted, job)
        for results in schedule.run():
            if results:
                results = keep_proofs(directory, results)
                store.put(results)
            tally.add(results)
    finally:
        executor.close()
    return schedule.peak_memory


def _settings(data: Dataset, arithmetic: str) -> str:
    """What else the verdicts depend on: how stored values become inputs, and what `holds` is about."""
    return json.dumps(data.record() | ({} if arithmetic == "real" else {ARITHMETIC: arithmetic}), sort_keys=True)


def _check_labels(labels: NDArray[Any], selection: range, classes: int) -> None:
    chosen = labels[selection.start : selection.stop]
    wrong = (chosen < 0) | (chosen >= classes)
    if wrong.any():
        at = int(wrong.argmax())
        raise InputError(
            f"data: sample {selection.start + at} has the label {chosen[at]}, but the network has {classes} outputs"
        )


class _Tally:
    """Counts finished samples and tells how far the run is."""

    def __init__(self, before: list[SampleResult], selection: range, tell: Callable[[Status], None] | None):
        self._found = Counter(result.verdict for result in before)
        self._before = len(before)
        self._total = len(selection)
        self._tell = tell
        self._began = time.monotonic()

    def add(self, results: list[SampleResult]) -> None:
        self._found.update(result.verdict for result in results)
        if self._tell is None:
            return
        finished = self._found.total()
        counts = Counts(finished, *(self._found[verdict] for verdict in VERDICTS))
        elapsed = time.monotonic() - self._began
        done = finished - self._before
        self._tell(Status(counts, self._total, elapsed, elapsed / done * (self._total - finished) if done else None))
