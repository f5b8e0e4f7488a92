"""The run store: every finished sample of a run, on disk as soon as it is known."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mipverify.errors import InputError
from mipverify.report.configuration import RunConfiguration
from mipverify.report.database import FILE, RunDatabase

if TYPE_CHECKING:
    from mipverify.engine.sample import SampleResult

SCHEMA = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, seconds REAL NOT NULL, finished INTEGER NOT NULL,
    version TEXT NOT NULL, options TEXT NOT NULL, peak_memory INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS samples (
    sample INTEGER PRIMARY KEY, label INTEGER NOT NULL, predicted INTEGER NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('misclassified', 'holds', 'violated', 'unknown')),
    stage TEXT NOT NULL, seconds REAL NOT NULL, margin_lower_bound REAL, adversarial BLOB, adversarial_label INTEGER,
    unstable TEXT NOT NULL, nodes INTEGER NOT NULL, reason TEXT NOT NULL, trusted TEXT NOT NULL);
"""

# A decision is never replaced, and the bound of an undecided sample only rises. Time and nodes of all attempts count.
_PUT = """
INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (sample) DO UPDATE SET
    predicted = iif(excluded.predicted < 0, samples.predicted, excluded.predicted),
    verdict = excluded.verdict, stage = excluded.stage,
    seconds = samples.seconds + excluded.seconds, nodes = samples.nodes + excluded.nodes,
    margin_lower_bound = CASE WHEN excluded.verdict != 'unknown' THEN excluded.margin_lower_bound
        ELSE max(ifnull(samples.margin_lower_bound, excluded.margin_lower_bound),
                 ifnull(excluded.margin_lower_bound, samples.margin_lower_bound)) END,
    adversarial = excluded.adversarial, adversarial_label = excluded.adversarial_label,
    unstable = CASE WHEN excluded.unstable = '[]' THEN samples.unstable ELSE excluded.unstable END,
    reason = excluded.reason,
    trusted = CASE WHEN excluded.verdict = 'unknown' AND samples.margin_lower_bound IS NOT NULL
        AND samples.margin_lower_bound >= ifnull(excluded.margin_lower_bound, samples.margin_lower_bound)
        THEN samples.trusted ELSE excluded.trusted END
WHERE samples.verdict = 'unknown'
"""


class RunStore:
    """The finished samples of one run in `DIR/results.sqlite`.

    Opening it again with the same question continues the run; with another one it raises InputError. Only one
    process at a time may hold it. Use as a context manager, from one thread.
    """

    def __init__(self, directory: Path, configuration: RunConfiguration, *, version: str, options: dict[str, Any]):
        self._database = RunDatabase(directory, _TABLES, "a report")
        self._connection = self._database.connection
        try:
            self._session = self._begin(configuration, version, options)
        except BaseException:
            self._database.close()
            raise
        self._began = time.monotonic()

    def _begin(self, configuration: RunConfiguration, version: str, options: dict[str, Any]) -> int | None:
        """Note a session of this run; returns its number."""
        path = self._database.path
        with self._database.transaction() as connection:
            stored = _read_run(connection, path)
            if stored is None:
                rows = {"schema": str(SCHEMA), **asdict(configuration)}
                connection.executemany("INSERT INTO run VALUES (?, ?)", list(rows.items()))
            elif different := configuration.differences(stored):
                raise InputError(f"{path.parent}: holds a run with another {', another '.join(different)}")
            return connection.execute(
                "INSERT INTO sessions (started, seconds, finished, version, options) VALUES (?, 0, 0, ?, ?)",
                (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), version, json.dumps(options, sort_keys=True)),
            ).lastrowid

    def put(self, results: Collection[SampleResult]) -> None:
        """Store finished samples in one transaction: all are on disk when this returns, or none and StoreError."""
        with self._database.transaction() as connection:
            connection.executemany(_PUT, [_row(result) for result in results])
            connection.execute(
                "UPDATE sessions SET seconds = ?, finished = finished + ? WHERE id = ?",
                (time.monotonic() - self._began, len(results), self._session),
            )

    def finish(self, peak_memory: int) -> None:
        """Note the time that this session took, and the largest resident size of a worker in bytes."""
        self.put([])
        with self._database.transaction() as connection:
            connection.execute("UPDATE sessions SET peak_memory = ? WHERE id = ?", (peak_memory, self._session))

    def results(self, samples: range | None = None) -> list[SampleResult]:
        """The stored samples in the order of their index."""
        with self._database.access():
            return _read_samples(self._connection, samples)

    def finished(self, *, retry_unknown: bool = False) -> set[int]:
        """Indices that need not run again."""
        condition = "WHERE verdict != 'unknown'" if retry_unknown else ""
        with self._database.access():
            return {index for (index,) in self._connection.execute(f"SELECT sample FROM samples {condition}")}

    def seconds(self) -> float:
        """Wall time of all sessions."""
        return _seconds(self._connection)

    def sessions(self) -> int:
        """How often the run was started or continued."""
        return int(self._connection.execute("SELECT count(*) FROM sessions").fetchone()[0])

    def peak_memory(self) -> int:
        """Largest resident size of a worker in any session, in bytes."""
        return int(self._connection.execute("SELECT max(peak_memory) FROM sessions").fetchone()[0])

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_run(directory: Path) -> tuple[RunConfiguration, list[SampleResult], float]:
    """Question, finished samples and wall seconds of the run in `directory`, which may be in progress elsewhere."""
    path = directory / FILE
    if not path.is_file():
        raise InputError(f"{directory}: holds no run (there is no {FILE})")
    try:
        database = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
        try:
            configuration = _read_run(database, path)
            if configuration is None:
                raise InputError(f"{path}: is not a run store")
            return configuration, _read_samples(database, None), _seconds(database)
        finally:
            database.close()
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _read_run(database: sqlite3.Connection, path: Path) -> RunConfiguration | None:
    rows = dict(database.execute("SELECT key, value FROM run"))
    if not rows:
        return None
    if rows.get("schema") != str(SCHEMA):
        raise InputError(f"{path}: was written with schema {rows.get('schema')}, this version reads {SCHEMA}")
    known = {field.name: rows[field.name] for field in fields(RunConfiguration) if field.name in rows}
    try:
        return RunConfiguration(**known)
    except TypeError:
        raise InputError(f"{path}: does not say what its run is about") from None


def _seconds(database: sqlite3.Connection) -> float:
    return float(database.execute("SELECT ifnull(sum(seconds), 0) FROM sessions").fetchone()[0])


def _row(result: SampleResult) -> tuple[Any, ...]:
    import numpy as np

    point = result.adversarial
    return (
        int(result.index),
        int(result.label),
        int(result.predicted),
        result.verdict,
        result.stage,
        float(result.seconds),
        None if result.margin_lower_bound is None else float(result.margin_lower_bound),
        None if point is None else np.ascontiguousarray(point, dtype="<f4").tobytes(),
        None if result.adversarial_label is None else int(result.adversarial_label),
        json.dumps([int(n) for n in result.unstable]),
        int(result.nodes),
        result.reason,
        json.dumps(list(result.trusted)),
    )


def _read_samples(database: sqlite3.Connection, samples: range | None) -> list[SampleResult]:
    import numpy as np

    from mipverify.engine.sample import SampleResult

    query, ends = "SELECT * FROM samples", tuple[int, ...]()
    if samples is not None:
        query, ends = f"{query} WHERE sample >= ? AND sample < ?", (samples.start, samples.stop)
    return [
        SampleResult(
            index=row[0],
            label=row[1],
            predicted=row[2],
            verdict=row[3],
            stage=row[4],
            seconds=row[5],
            margin_lower_bound=row[6],
            adversarial=None if row[7] is None else np.frombuffer(row[7], dtype="<f4"),
            adversarial_label=row[8],
            unstable=tuple(json.loads(row[9])),
            nodes=row[10],
            reason=row[11],
            trusted=tuple(json.loads(row[12])),
        )
        for row in database.execute(f"{query} ORDER BY sample", ends)
    ]
