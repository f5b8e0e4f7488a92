"""Distances of many samples: every finished one is on disk at once, and the same command goes on where it stopped."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mipverify.errors import InputError, MipverifyError
from mipverify.report.configuration import parse_samples
from mipverify.report.lock import DirectoryLock

if TYPE_CHECKING:
    import numpy as np

    from mipverify.network import Network
    from mipverify.network.model_file import ModelFile
    from mipverify.specification import Dataset

COLUMNS = ("index", "label", "status", "lower", "upper", "adversarial_label", "seconds", "questions", "nodes", "reason")

_TABLES = """
CREATE TABLE IF NOT EXISTS distance_run (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS distances (
    sample INTEGER PRIMARY KEY, label INTEGER NOT NULL, status TEXT NOT NULL, lower REAL NOT NULL, upper REAL,
    adversarial_label INTEGER, seconds REAL NOT NULL, questions INTEGER NOT NULL, nodes INTEGER NOT NULL,
    reason TEXT NOT NULL, witness TEXT);
"""


@dataclass(frozen=True)
class Distances:
    """A run: one dictionary with COLUMNS for each sample, a summary, and the files they are in."""

    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    csv: Path


def run_distances(
    network: str,
    data: str,
    samples: str | None,
    *,
    out: str,
    asked: dict[str, Any],
    workers: int = 1,
    progress: Callable[[str, str], None] | None = None,
) -> Distances:
    """Minimum distortion of the samples BEGIN:END of a data set; asked: the arguments of `minimum_distortion`.

    Writes results.sqlite, distances.csv and distances.json into `out`. Samples whose bounds have not met run again,
    and keep the better of both answers.
    """
    from mipverify.network import load
    from mipverify.specification import load_dataset

    loaded = load(network)
    dataset = load_dataset(data).fit_to(loaded.input_shape)
    selection = parse_samples(samples, len(dataset.labels))
    question = {key: value for key, value in asked.items() if key not in ("timeout", "solver", "seed")}
    identity = {"network": loaded.sha256, "data": dataset.sha256, **question}
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = DirectoryLock(folder)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
    try:
        store = _Store(folder / "results.sqlite", json.dumps(identity, sort_keys=True))
        wanted = [index for index in selection if index not in store.finished()]
        for done, row in enumerate(_answers(loaded, dataset, wanted, asked, workers), 1):
            store.put(row)
            if progress is not None:
                progress("samples", f"{done} of {len(wanted)}: {row['index']} {row['status']}")
        rows = store.rows(selection)
    except sqlite3.Error as error:
        raise MipverifyError(f"{folder / 'results.sqlite'}: {error}; what was finished is kept") from None
    finally:
        lock.close()
    table = folder / "distances.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    summary = _summary(rows)
    (folder / "distances.json").write_text(json.dumps(summary, indent=1) + "\n")
    return Distances(rows, summary, table)


class _Store:
    def __init__(self, path: Path, identity: str):
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.executescript(_TABLES)
        stored = self._database.execute("SELECT value FROM distance_run WHERE key = 'question'").fetchone()
        if stored is None:
            self._database.execute("INSERT INTO distance_run VALUES ('question', ?)", (identity,))
        elif stored[0] != identity:
            raise InputError(f"{path.parent}: holds a run that asks another question")

    def finished(self) -> set[int]:
        query = "SELECT sample FROM distances WHERE status != 'bounded'"
        return {index for (index,) in self._database.execute(query)}

    def put(self, row: dict[str, Any]) -> None:
        old = self._database.execute(
            "SELECT lower, upper, seconds FROM distances WHERE sample = ?", (row["index"],)
        ).fetchone()
        if old is not None:
            row = {**row, "lower": max(row["lower"], old[0]), "seconds": row["seconds"] + old[2]}
        values = [row[column] for column in COLUMNS] + [json.dumps(row["witness"])]
        self._database.execute(f"INSERT OR REPLACE INTO distances VALUES ({','.join('?' * 11)})", values)

    def rows(self, selection: range) -> list[dict[str, Any]]:
        query = "SELECT * FROM distances WHERE sample >= ? AND sample < ? ORDER BY sample"
        found = self._database.execute(query, (selection.start, selection.stop))
        return [dict(zip(COLUMNS, row[: len(COLUMNS)], strict=True)) for row in found]


def _answers(
    network: Network, data: Dataset, wanted: list[int], asked: dict[str, Any], workers: int
) -> Iterator[dict[str, Any]]:
    assert network.file is not None
    given = ((network.file, index, data.image(index), data.label(index), asked) for index in wanted)
    if workers <= 1 or len(wanted) <= 1:
        for one in given:
            yield _answer(*one)
        return
    # spawn: the parent has threads of native libraries, which a fork would copy in an unknown state
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        tasks = [pool.submit(_answer, *one) for one in given]
        try:
            for task in as_completed(tasks):
                yield task.result()
        finally:
            for task in tasks:
                task.cancel()


def _one_thread() -> None:
    import os

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


@lru_cache(maxsize=1)
def _loaded(file: ModelFile) -> Network:
    from mipverify.network import load

    return load(file)


def _answer(file: ModelFile, index: int, image: np.ndarray, label: int, asked: dict[str, Any]) -> dict[str, Any]:
    from mipverify.engine.distortion import minimum_distortion

    found = minimum_distortion(_loaded(file), image, label, **asked)
    record = found.to_json()
    other = None
    if found.witness is not None:
        scores = found.witness.output.reshape(-1)
        other = max((k for k in range(len(scores)) if k != label), key=lambda k: float(scores[k]))
    return {
        "index": index,
        "label": label,
        "status": found.status,
        "lower": found.lower,
        "upper": found.upper,
        "adversarial_label": other,
        "seconds": found.seconds,
        "questions": found.statistics["questions"],
        "nodes": found.statistics["nodes"],
        "reason": found.reason,
        "witness": record["witness"],
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    from statistics import median

    distances = [row["upper"] for row in rows if row["upper"] is not None]
    counts = {status: sum(row["status"] == status for row in rows) for status in ("optimal", "bounded", "none")}
    return {
        "samples": len(rows),
        **counts,
        "distance": {
            "median": median(distances) if distances else None,
            "smallest": min(distances, default=None),
            "largest": max(distances, default=None),
        },
        "median_seconds": median(row["seconds"] for row in rows) if rows else 0.0,
    }
