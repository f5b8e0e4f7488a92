"""All proofs of a run, checked by the independent checker; what it says is stored beside the samples."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mipverify.engine.sample import SampleResult
from mipverify.errors import InputError
from mipverify.report.checker import CheckerProcess, Judgement
from mipverify.report.configuration import RunConfiguration
from mipverify.report.curve import AccuracyCurve, result_of
from mipverify.report.hashes import hash_arrays
from mipverify.report.proofs import path_of
from mipverify.report.result import AccuracyResult
from mipverify.report.run import publish
from mipverify.report.store import RunStore, read_run

if TYPE_CHECKING:
    from mipverify.network import Network
    from mipverify.specification.dataset import Dataset

EVERY = 1.0  # seconds between two transactions


@dataclass(frozen=True)
class Checked:
    """What is known of the proofs of a run. result: the run with it. seconds: wall time of this call.

    judged: how many this call has checked. unjudged: samples whose proof the checker could not judge, and why.
    """

    result: AccuracyResult | AccuracyCurve
    judged: int
    unjudged: tuple[tuple[int, str], ...]
    seconds: float

    @property
    def rejected(self) -> tuple[SampleResult, ...]:
        """The samples whose proofs are rejected; `proof_check` says why."""
        own = (sample for sample in self.result.samples if not sample.decided_at)
        return tuple(sample for sample in own if sample.proof_state == "rejected")


def check_run(
    directory: str | Path,
    *,
    network: str | None = None,
    data: str | None = None,
    exact: bool = False,
    timeout: float | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Check the proofs of a run in several processes, and store what comes of each as soon as it is known.

    network, data: where these files are now, if not where the run has found them. timeout: seconds for one proof.
    progress: called with how many of how many are done. What this checker has verified is not checked again, as long as
    the file is the same. A verified proof counts if it shows what the run has asked about its sample. Raises InputError
    where the folder keeps no proofs, or network or data are not those of the run.
    """
    folder, begin = Path(directory), time.monotonic()
    configuration, samples, _ = read_run(folder)
    place = partial(path_of, folder, several=configuration.curve)
    held = [s for s in samples if s.verdict == "holds" and (s.proof_state or place(s).is_file())]
    if not held:
        raise InputError(f"{folder}: keeps no proofs; report --proofs makes them")
    files = Files.of(configuration, network, data)
    checkers = [CheckerProcess(files.path, exact=exact, timeout=timeout)]
    unjudged: list[tuple[int, str]] = []
    with RunStore(folder, None, version="", options={}) as store:
        try:
            if checkers[0].network != configuration.network_sha256:
                raise InputError(f"{files.path}: is not the network of the run: the SHA-256 differs")
            who = checkers[0].who
            open_ = [sample for sample in held if not _settled(place(sample), sample, who)]
            for _ in range(1, min(workers, len(open_))):
                checkers.append(CheckerProcess(files.path, exact=exact, timeout=timeout))
            done, pending, stored = 0, list[SampleResult](), time.monotonic()
            try:
                with closing(_judgements(place, open_, checkers)) as judgements:
                    for sample, judgement in judgements:
                        if judgement.verdict == "unjudged":
                            unjudged.append((sample.index, judgement.reason))
                        pending.append(_marked(sample, judgement, files.asked(sample), who))
                        done += 1
                        if time.monotonic() - stored > EVERY:
                            store.mark(pending)
                            pending, stored = [], time.monotonic()
                            if progress is not None:
                                progress(done, len(open_))
            finally:
                store.mark(pending)
        finally:
            for checker in checkers:
                checker.close()
        result = _result(store, configuration, files, folder)
    publish(result, files.data, files.network)
    return Checked(result, len(open_), tuple(unjudged), time.monotonic() - begin)


def _settled(path: Path, sample: SampleResult, who: str) -> bool:
    """Whether this checker has verified the very file that is there."""
    if sample.proof_state != "verified" or sample.proof_check != who:
        return False
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == sample.proof_sha256
    except OSError:
        return False


def _marked(sample: SampleResult, judgement: Judgement, asked: dict[str, Any], who: str) -> SampleResult:
    """The sample with what the checker has said."""
    state, why = judgement.verdict, judgement.reason
    if state == "verified":
        differs = [name for name in asked if (judgement.asked or {}).get(name) != asked[name]]
        state, why = ("rejected", f"it is about another {' and another '.join(differs)}") if differs else (state, who)
    elif state == "unjudged":
        state = "kept"
    return replace(sample, proof_state=state, proof_check=why, proof_sha256=judgement.sha256)  # type: ignore[arg-type]


def _judgements(
    place: Callable[[SampleResult], Path], samples: Sequence[SampleResult], checkers: Sequence[CheckerProcess]
) -> Generator[tuple[SampleResult, Judgement]]:
    """What checkers say, in the order in which they are done; each takes the next sample when it is free."""
    found: queue.SimpleQueue[tuple[SampleResult, Judgement] | BaseException] = queue.SimpleQueue()
    left, lock, ended = iter(samples), threading.Lock(), threading.Event()

    def work(checker: CheckerProcess) -> None:
        try:
            while not ended.is_set():
                with lock:
                    sample = next(left, None)
                if sample is None:
                    return
                path = place(sample)
                missing = Judgement("rejected", "its file is missing")
                found.put((sample, checker.judge(path.absolute()) if path.is_file() else missing))
        except BaseException as error:  # noqa: BLE001  # raised where the judgements are read
            found.put(error)

    threads = [threading.Thread(target=work, args=(checker,), daemon=True) for checker in checkers]
    for thread in threads:
        thread.start()
    try:
        for _ in samples:
            item = found.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        ended.set()
        for checker in checkers:
            checker.end()
        for thread in threads:
            thread.join()


@dataclass(frozen=True, eq=False)
class Files:
    """The network and the data of a run, and what a proof of one of its samples must show. path: of the network."""

    configuration: RunConfiguration
    path: str
    network: Network
    data: Dataset

    @staticmethod
    def of(configuration: RunConfiguration, network: str | None, data: str | None) -> Files:
        """Raises InputError where they cannot be read, or are not those of the run."""
        from mipverify.network import load
        from mipverify.specification import load_dataset
        from mipverify.specification.preprocessing import Preprocessing

        settings = configuration.preprocessing
        domain = None if settings["domain"] == "none" else tuple(settings["domain"].split(","))
        given = Preprocessing.of(**{**settings, "domain": domain})
        path, images = network or configuration.network, data or configuration.data
        loaded, dataset = load(path), load_dataset(images, given)
        if loaded.sha256 != configuration.network_sha256:
            raise InputError(f"{path}: is not the network of the run: the SHA-256 differs")
        if (dataset.sha256, hash_arrays(dataset.labels)) != (configuration.data_sha256, configuration.labels_sha256):
            raise InputError(f"{images}: is not the data of the run: the SHA-256 differs")
        return Files(configuration, path, loaded, dataset.fit_to(loaded.input_shape))

    def asked(self, sample: SampleResult) -> dict[str, Any]:
        """The question about a sample, as the checker says it (docs/proof-format.md, section 6)."""
        from mipverify.specification.exact import exact_number

        pixels, label = self.data.image(sample.index), self.data.label(sample.index)
        return {
            **self._of_all,
            "eps": str(exact_number(sample.eps, "eps")),
            "image": hashlib.sha256(pixels.reshape(-1).astype("f8").tobytes()).hexdigest(),
            "label": label,
            "targets": [c for c in range(self.network.output_size) if c != label],
        }

    @cached_property
    def _of_all(self) -> dict[str, Any]:
        from mipverify.specification.normalization import Normalization

        domain = self.data.preprocessing.domain
        normalization = Normalization.of(self.data.mean, self.data.std, self.data.image_shape)
        return {
            "kind": "robustness",
            "arithmetic": self.configuration.arithmetic,
            "norm": self.configuration.norm,
            "domain": None if domain is None else [str(limit) for limit in domain],
            "normalization": None
            if normalization is None
            else {
                "pairs": [[str(mean), str(std)] for mean, std in normalization.pairs],
                "which": hashlib.sha256(normalization.which.astype("i8").tobytes()).hexdigest(),
            },
        }


def _result(
    store: RunStore, configuration: RunConfiguration, files: Files, folder: Path
) -> AccuracyResult | AccuracyCurve:
    """The run as its last start has left it, with what is known of its proofs."""
    version, options = store.last_session()
    results = store.results()
    begin, end = options.get("samples", (results[0].index, results[-1].index + 1))
    results = [result for result in results if begin <= result.index < end]
    about = {
        "selection": range(begin, end),
        "seconds": store.seconds(),
        "sessions": store.sessions(),
        "version": version,
        "options": options,
        "peak_memory": store.peak_memory(),
    }
    names = tuple(options.get("class_names", ()))
    return result_of(results, configuration, about, folder, files.data.described(), files.data, names)
