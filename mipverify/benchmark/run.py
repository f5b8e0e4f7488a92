"""A benchmark from beginning to end: run what is missing, compare with others, write tables and the page."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipverify.benchmark.columns import OUTCOMES, Outcome
from mipverify.benchmark.instances import Instance, find_instances, select
from mipverify.benchmark.job import BenchmarkJob, Hashes
from mipverify.benchmark.others import Tool, read_tools, read_truth, witness_names
from mipverify.benchmark.score import Scores, score
from mipverify.benchmark.store import BenchmarkStore
from mipverify.cluster import Schedule, open_executor
from mipverify.errors import InputError
from mipverify.parallel import cores
from mipverify.report.database import FILE, publishing
from mipverify.report.files import Replacing, refuse_overwriting

RESULTS, TABLE, SUMMARY, PAGE = "results.csv", "outcomes.csv", "summary.json", "benchmark.html"
WITNESSES = "counterexamples"


@dataclass(frozen=True)
class BenchmarkLimits:
    """How to look for the answers; none of it changes the questions.

    cap: seconds that no instance gets more than. workers: instances side by side, which share the cores.
    """

    cap: float | None = None
    workers: int = 1
    solver: str = "auto"
    seed: int = 0
    memory: str | None = None
    cluster: str | None = None


@dataclass(frozen=True)
class BenchmarkResult:
    """The outcomes of the instances that were asked for, what they come to, and where all of it is."""

    outcomes: tuple[Outcome, ...]
    scores: Scores
    tools: tuple[Tool, ...]
    directory: Path
    summary: dict[str, Any]


def run_benchmark(
    place: str,
    *,
    out: str,
    limits: BenchmarkLimits,
    match: str | None = None,
    every: int = 1,
    against: Sequence[str] = (),
    truth: str | None = None,
    progress: Callable[[int, int, Sequence[Outcome]], None] | None = None,
) -> BenchmarkResult:
    """Run the instances of a place that are not decided yet, and write what is known about all of them into `out`.

    An undecided one runs again if its limit is longer now, and one that ended in an error in any case. progress: called
    with how many are done, how many were asked for, and what has just come back. Raises InputError for what is not as
    it should be, before anything runs.
    """
    everything = find_instances(place)
    chosen = select(everything, match, every)
    directory = Path(out)
    tools = read_tools(against, chosen)
    known = read_truth(truth, chosen) if truth is not None else {}
    files = [path for instance in chosen for path in (instance.property_path, *(p for _, p in instance.networks))]
    outputs = [("--out", directory / name) for name in (FILE, RESULTS, TABLE, SUMMARY, PAGE)]
    refuse_overwriting(outputs, [*files, *(tool.path for tool in tools), truth])
    hashes = fingerprints(chosen)
    with BenchmarkStore(directory, _fingerprint(everything)) as store:
        job = BenchmarkJob(
            {instance.index: instance for instance in chosen},
            hashes,
            limits.cap,
            max(cores() // limits.workers, 1),
            limits.solver,
            limits.seed,
            limits.memory,
        )
        finished = {one.index for one in store.outcomes(hashes) if one.final(job.limit(one.index))}
        wanted = [index for index in hashes if index not in finished]
        if wanted:
            _run(job, wanted, len(finished), limits, store, progress)
        outcomes = tuple(store.outcomes(hashes))
    scores = score(outcomes, tools, known)
    result = BenchmarkResult(outcomes, scores, tuple(tools), directory, summary_of(place, outcomes, scores))
    _publish(result, {instance.index: instance for instance in chosen})
    return result


def _run(
    job: BenchmarkJob,
    wanted: Sequence[int],
    finished: int,
    limits: BenchmarkLimits,
    store: BenchmarkStore,
    progress: Callable[[int, int, Sequence[Outcome]], None] | None,
) -> None:
    executor = open_executor(job, workers=min(limits.workers, len(wanted)), cluster=limits.cluster)
    total = finished + len(wanted)
    try:
        for outcomes in Schedule[Outcome](executor, wanted, job).run():
            if outcomes:
                store.put(outcomes)
            finished += len(outcomes)
            if progress is not None:
                progress(finished, total, outcomes)
    finally:
        executor.close()


def fingerprints(instances: Sequence[Instance]) -> dict[int, Hashes]:
    """Fingerprints of what instances ask about; each file is read once."""
    from mipverify.network.compose import combined_sha256
    from mipverify.network.model_file import read_model
    from mipverify.specification.files import read_file

    networks: dict[Path, str] = {}
    properties: dict[Path, str] = {}
    found = {}
    for instance in instances:
        for _, path in instance.networks:
            if path not in networks:
                networks[path] = _sha256(path, lambda file: read_model(file)[1].sha256)
        if instance.property_path not in properties:
            properties[instance.property_path] = _sha256(instance.property_path, lambda file: read_file(file)[1])
        named = [(name, networks[path]) for name, path in instance.networks]
        found[instance.index] = Hashes(combined_sha256(named), properties[instance.property_path])
    return found


def _sha256(path: Path, read: Callable[[Path], str]) -> str:
    """What `read` makes of a file, weights in other files included; of one that cannot be read that of its bytes."""
    try:
        return read(path)
    except InputError:  # the instance will say what is wrong with it, and others go on
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _fingerprint(instances: Sequence[Instance]) -> str:
    """Of the numbers and names of all instances, but not of their limits."""
    digest = hashlib.sha256()
    for instance in instances:
        digest.update(repr((instance.index, instance.benchmark, instance.onnx, instance.vnnlib)).encode())
    return digest.hexdigest()


def summary_of(place: str, outcomes: Sequence[Outcome], scores: Scores) -> dict[str, Any]:
    """The contents of `summary.json`."""
    from mipverify import __version__

    standings: dict[str, Any] = {}
    for (tool, benchmark), standing in scores.standings.items():
        standings.setdefault(benchmark or "all", {})[tool] = {
            "instances": standing.instances,
            "solved": standing.solved,
            **standing.counts,
            "wrong": standing.wrong,
            "score": standing.score,
            "par2": round(standing.par2, 3),
        }
    return {
        "place": str(place),
        "instances": len(outcomes),
        "seconds": round(sum(outcome.seconds for outcome in outcomes), 3),
        "standings": standings,
        "contradictions": [one.outcome.index for one in scores.contradictions],
        "version": __version__,
    }


def _publish(result: BenchmarkResult, instances: Mapping[int, Instance]) -> None:
    """Write tables, counterexamples and the page. Raises StoreError if that is not possible."""
    from mipverify.benchmark.page import write_page

    folder = result.directory
    with publishing(folder, "the tables"):
        with Replacing(folder / RESULTS) as file:
            writer = csv.writer(file, lineterminator="\n")
            for one in result.outcomes:
                seconds = f"{one.seconds:.6f}"
                writer.writerow([one.benchmark, one.onnx, one.vnnlib, "0", one.word, seconds])
        OUTCOMES.write_csv(folder / TABLE, result.outcomes)
        _write_witnesses(folder / WITNESSES, result.outcomes)
        with Replacing(folder / SUMMARY) as file:
            file.write(json.dumps(result.summary, indent=1, allow_nan=False) + "\n")
        write_page(folder / PAGE, result)


def _write_witnesses(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Counterexamples as the competition files them: BENCHMARK/NETWORK_PROPERTY.counterexample."""
    for one in outcomes:
        if one.witness is not None:
            place = folder / _safe(one.benchmark)
            place.mkdir(parents=True, exist_ok=True)
            with Replacing(place / _safe(f"{witness_names(one.onnx, one.vnnlib)[-1]}.counterexample")) as file:
                file.write(one.witness)


def _safe(name: str) -> str:
    """A name that is one part of a path."""
    cleaned = "".join(character if character.isprintable() and character not in "/\\:" else "_" for character in name)
    if cleaned in ("", ".", ".."):
        raise InputError(f"{name!r} cannot be the name of a file")
    return cleaned
