"""Exact adversarial accuracy of a whole test set, in a directory that survives interruptions."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mipverify import __version__
from mipverify.cluster import SampleJob, Schedule, open_executor
from mipverify.cluster.job import as_sent
from mipverify.engine.sample import SampleResult
from mipverify.errors import InputError
from mipverify.parallel import cores
from mipverify.report.configuration import ARITHMETIC, THREAT, RunConfiguration, canonical_radii, parse_samples
from mipverify.report.curve import AccuracyCurve, result_of, write_curve
from mipverify.report.database import FILE, publishing
from mipverify.report.files import inputs_of, refuse_overwriting
from mipverify.report.hashes import hash_arrays, hash_network
from mipverify.report.proofs import forget_proofs, keep_proofs, lacks_proof
from mipverify.report.radii import Ladder
from mipverify.report.result import AccuracyResult
from mipverify.report.store import RunStore
from mipverify.report.summary import write_tables
from mipverify.report.tally import Status, Tally
from mipverify.specification.exact import shorten

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from mipverify.engine.threats.threat import Threat
    from mipverify.network import Network
    from mipverify.specification.dataset import Dataset
    from mipverify.specification.normalization import Normalization
    from mipverify.specification.preprocessing import Preprocessing

WRITTEN = (
    FILE,
    "samples.csv",
    "samples.parquet",
    "summary.json",
    "report.html",
    "curve.csv",
)  # into the folder of a run


THREATENED = "mipverify.engine.threats.samples:verify_threatened"


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
    eps: str | float | Sequence[str | float] | None = None,
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
    threat: Threat | None = None,
) -> AccuracyResult | AccuracyCurve:
    """Decide for every sample whether any input within `eps` is classified otherwise than by its label.

    network   a Network or the path of an ONNX file
    images    (N, ...) with values in the domain, as many values each as the network takes
    labels    (N,) integers
    eps       radius; a string is read exactly, a float as the shortest decimal that means it. Several of them give
              an `AccuracyCurve`
    domain    smallest and largest legal value, read as exactly as `eps`; None for no limits
    mean, std the network takes (x - mean) / std: a number, or one for each channel
    out       directory that keeps the results, so that the same call goes on where it stopped; also receives the
              tables and the page. Nothing is kept without it
    workers   local processes, by default one for each core; 0 runs in this process
    timeout   seconds for each sample
    cluster   address of a Dask scheduler, or `local`
    class_names  one for each class, for the page and the result
    arithmetic  what `holds` is about: the real-valued function, or with `float32` every evaluation in float32
    threat    what may be done to samples; None for balls of radius `eps`

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
    given_radii = eps if isinstance(eps, list | tuple) else [] if eps is None else [eps]
    radii = _radii(threat, [str(radius) for radius in given_radii])
    dataset = Dataset(pixels, classes.astype(np.int64), "in memory", "in memory", hash_arrays(pixels), given)
    configuration = RunConfiguration(
        network=loaded.path or "in memory",
        network_sha256=loaded.sha256 or hash_network(loaded),
        data="in memory",
        data_sha256=dataset.sha256,
        labels_sha256=hash_arrays(dataset.labels),
        eps=",".join(radii),
        norm=norm,
        settings=_settings(dataset, loaded.arithmetic, threat),
    )
    how: dict[str, Any] = {} if threat is None else {"verifier": THREATENED, "threat": threat}
    job = SampleJob(as_sent(loaded), dataset, radii, timeout, solver, seed, arithmetic=loaded.arithmetic, **how)
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
    eps: str | None,
    *,
    out: str,
    limits: Limits,
    threat: Threat | None = None,
    norm: str = "linf",
    samples: str | None = None,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] = (),
    progress: Callable[[Status], None] | None = None,
) -> AccuracyResult | AccuracyCurve:
    """The same from files, for the command line: also writes the tables and the page.

    samples: as in 0:500. eps: a radius, or several with commas between.
    """
    from mipverify.network import load
    from mipverify.network.deployed import in_arithmetic
    from mipverify.specification import load_dataset

    radii = _radii(threat, [] if eps is None else eps.split(","))
    dataset = load_dataset(data, preprocessing)
    loaded = in_arithmetic(load(network), limits.arithmetic)
    refuse_overwriting([("--out", Path(out) / name) for name in WRITTEN], inputs_of(loaded, data))
    configuration = RunConfiguration(
        network=network,
        network_sha256=loaded.sha256 or hash_network(loaded),
        data=data,
        data_sha256=dataset.sha256,
        labels_sha256=hash_arrays(dataset.labels),
        eps=",".join(radii),
        norm=norm,
        settings=_settings(dataset, loaded.arithmetic, threat),
    )
    if threat is not None and limits.proofs:
        raise InputError("--proofs cannot be combined with --threat")
    verifier = limits.verifier if threat is None else THREATENED
    how = limits.timeout, limits.solver, limits.seed, verifier, limits.proofs
    job = SampleJob(as_sent(loaded), dataset, radii, *how, arithmetic=loaded.arithmetic, threat=threat)
    result = _run(job, loaded, dataset, configuration, samples, Path(out), limits, progress, class_names)
    publish(result, dataset, loaded)
    return result


def publish(result: AccuracyResult | AccuracyCurve, data: Dataset, network: Network) -> None:
    """Write the tables and the page of a run into its directory. Raises StoreError if that is not possible."""
    from mipverify.specification.normalization import Normalization

    assert result.directory is not None
    with publishing(result.directory, "the report"):
        fitted = data.fit_to(network.input_shape)
        shown = _as_pixels(result.samples, Normalization.of(fitted.mean, fitted.std, fitted.image_shape))
        if isinstance(result, AccuracyCurve):
            write_curve(result, shown, fitted.images, data.image_shape)
            return
        from mipverify.report.page import write_page

        write_tables(result.directory, result.summary, result.samples)
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
) -> AccuracyResult | AccuracyCurve:
    if configuration.norm != "linf":
        raise InputError(f"--norm {configuration.norm}: a report can be made for linf only")
    data.fit_to(network.input_shape)
    selection = parse_samples(samples, len(data))
    _check_labels(data.labels, selection, network.output_size)
    names = _names(class_names, network.output_size)
    options = {**limits.options(), "samples": [selection.start, selection.stop], "class_names": list(names)}
    with RunStore(directory, configuration, version=__version__, options=options) as store:
        if store.sessions() == 1:
            forget_proofs(directory)
        ladder = _known(store.results(selection), configuration, limits, directory)
        wanted = ladder.first(selection)
        peak_memory = 0
        if wanted:
            tally = Tally(ladder, selection, progress)
            peak_memory = _verify(job, wanted, limits, store, ladder, tally, directory)
        store.finish(peak_memory)
        results = store.results(selection)
        about: dict[str, Any] = {
            "selection": selection,
            "seconds": store.seconds(),
            "sessions": store.sessions(),
            "version": __version__,
            "options": options,
            "peak_memory": store.peak_memory(),
        }
    shown = directory, data.described(), data.fit_to(network.input_shape), names
    return result_of(results, configuration, about, *shown)


def _known(results: Sequence[SampleResult], configuration: RunConfiguration, limits: Limits, directory: Path) -> Ladder:
    """What earlier sessions have found, as far as it need not be found again."""
    ladder = Ladder(configuration.radii)
    for result in results:
        again = limits.retry_unknown and result.verdict == "unknown"
        if not (again or (limits.proofs and lacks_proof(directory, result, several=configuration.curve))):
            ladder.learn(result.index, result)
    return ladder


def _verify(
    job: SampleJob,
    wanted: list[int],
    limits: Limits,
    store: RunStore,
    ladder: Ladder,
    tally: Tally,
    directory: Path,
) -> int:
    """Run samples and store what comes back; returns the peak memory of a worker."""
    workers, several = min(limits.resolved_workers(), len(wanted)), len(job.radii) > 1
    executor = open_executor(job, workers=workers, cluster=limits.cluster)
    try:
        schedule = Schedule[SampleResult](executor, wanted, job, ladder.after)
        for answers in schedule.run():
            results = [replace(answer, index=answer.index // len(job.radii)) for answer in answers]
            if results:
                store.put(keep_proofs(directory, results, several=several))
            tally.add(results)
    finally:
        executor.close()
    return schedule.peak_memory


def _settings(data: Dataset, arithmetic: str, threat: Threat | None) -> str:
    """What else the verdicts depend on: how stored values become inputs, what `holds` is about, and a threat."""
    settings = data.record() | ({} if arithmetic == "real" else {ARITHMETIC: arithmetic})
    return json.dumps(settings | ({} if threat is None else {THREAT: threat.text}), sort_keys=True)


def _radii(threat: Threat | None, texts: Sequence[str]) -> tuple[str, ...]:
    """The radii of a run; an empty one for a threat that has none. Raises InputError."""
    if not texts and threat is not None and threat.radius != "needed":
        return ("",)
    if not texts or (threat is not None and threat.radius == "none"):
        what = "eps" if threat is None else f"threat {threat.text}"
        raise InputError(f"{what}: takes no radius" if texts else f"{what}: a radius (eps) is needed")
    return canonical_radii(texts)


def _names(given: object, outputs: int) -> tuple[str, ...]:
    """Names of the classes, one for each output, or none."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(f"class_names must be a list of names, not {shorten(repr(given))}")
    names = tuple(given)
    if names and len(names) != outputs:
        raise InputError(f"{len(names)} names of classes, but the network has {outputs} outputs")
    return names


def _check_labels(labels: NDArray[Any], selection: range, classes: int) -> None:
    chosen = labels[selection.start : selection.stop]
    wrong = (chosen < 0) | (chosen >= classes)
    if wrong.any():
        at = int(wrong.argmax())
        raise InputError(
            f"data: sample {selection.start + at} has the label {chosen[at]}, but the network has {classes} outputs"
        )
