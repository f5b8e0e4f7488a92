"""The run store: every finished sample of a run, on disk as soon as it is known."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mipverify.errors import InputError, one_line
from mipverify.report.columns import AT_RADII, SAMPLES
from mipverify.report.configuration import RunConfiguration
from mipverify.report.database import FILE, RunDatabase
from mipverify.report.table import INTEGER, REAL, TEXT, Column, Table

if TYPE_CHECKING:
    from mipverify.engine.sample import SampleResult

SCHEMA = 1


@dataclass(frozen=True)
class Session:
    """One start of a run. seconds: wall time. peak_memory: bytes, largest resident size of a worker."""

    id: int
    started: str
    seconds: float
    finished: int
    version: str
    options: str
    peak_memory: int


SESSIONS = Table[Session](
    "sessions",
    (
        Column("id", INTEGER),
        Column("started", TEXT),
        Column("seconds", REAL),
        Column("finished", INTEGER),
        Column("version", TEXT),
        Column("options", TEXT),
        Column("peak_memory", INTEGER, older=0),
    ),
    Session,
)


class RunStore:
    """The finished samples of one run in `DIR/results.sqlite`.

    Opening it again with the same question continues the run; with another one it raises InputError. Without a
    configuration it is opened as it is: no session begins. Only one process at a time may hold it. Use as a context
    manager, from one thread.
    """

    def __init__(
        self, directory: Path, configuration: RunConfiguration | None, *, version: str, options: dict[str, Any]
    ):
        question = read_question(directory) if configuration is None else configuration
        self._samples, self._eps = table_of(question), question.eps
        self._database = RunDatabase(directory, "run", (SESSIONS, self._samples), "a report")
        self._connection = self._database.connection
        try:
            self._session = self._begin(configuration, version, options)
        except BaseException:
            self._database.close()
            raise
        self._began = time.monotonic()

    def _begin(self, configuration: RunConfiguration | None, version: str, options: dict[str, Any]) -> int | None:
        """Note a session of this run; returns its number."""
        path = self._database.path
        with self._database.beginning() as (connection, about):
            stored = _configuration(about, path)
            if configuration is None:
                return None
            if stored is None:
                self._database.describe(connection, {"schema": str(SCHEMA), **asdict(configuration)})
            elif different := configuration.differences(stored):
                raise InputError(f"{path.parent}: holds a run with another {', another '.join(different)}")
            return connection.execute(
                "INSERT INTO sessions (started, seconds, finished, version, options) VALUES (?, 0, 0, ?, ?)",
                (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), version, json.dumps(options, sort_keys=True)),
            ).lastrowid

    def put(self, results: Collection[SampleResult]) -> None:
        """Store finished samples in one transaction: all are on disk when this returns, or none and StoreError."""
        with self._database.transaction() as connection:
            self._samples.put(connection, results)
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
        """The stored samples in the order of their index, each with every radius that it was asked about."""
        with self._database.reading():
            return _with_radius(self._samples.read(self._connection, samples), self._eps)

    def mark(self, results: Collection[SampleResult]) -> None:
        """Store what became of the proofs of samples that are there, and nothing else of them."""
        with self._database.transaction() as connection:
            self._samples.update(connection, results, ("proof_state", "proof_check", "proof_sha256"))

    def last_session(self) -> tuple[str, dict[str, Any]]:
        """Version and options of the last start."""
        with self._database.reading():
            row = self._connection.execute("SELECT version, options FROM sessions ORDER BY id DESC LIMIT 1").fetchone()
            return ("", {}) if row is None else (row[0], json.loads(row[1]))

    def seconds(self) -> float:
        """Wall time of all sessions."""
        with self._database.reading():
            return _seconds(self._connection)

    def sessions(self) -> int:
        """How often the run was started or continued."""
        with self._database.reading():
            return int(self._connection.execute("SELECT count(*) FROM sessions").fetchone()[0])

    def peak_memory(self) -> int:
        """Largest resident size of a worker in any session, in bytes."""
        with self._database.reading():
            return int(self._connection.execute("SELECT max(peak_memory) FROM sessions").fetchone()[0])

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_run(directory: Path) -> tuple[RunConfiguration, list[SampleResult], float]:
    """Question, finished samples and wall seconds of the run in `directory`, which may be in progress elsewhere."""
    with _reading(directory) as (database, configuration):
        try:
            samples = _with_radius(table_of(configuration).read(database), configuration.eps)
            seconds = _seconds(database)
        except InputError as error:
            raise InputError(f"{directory / FILE}: {error}") from None
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{directory / FILE}: is damaged ({one_line(error)})") from None
        return configuration, samples, seconds


def read_question(directory: Path) -> RunConfiguration:
    """What the run in `directory` is about."""
    with _reading(directory) as (_, configuration):
        return configuration


@contextmanager
def _reading(directory: Path) -> Iterator[tuple[sqlite3.Connection, RunConfiguration]]:
    """The store of a run, to be read only, and its question. Raises InputError where there is none."""
    path = directory / FILE
    if not path.is_file():
        raise InputError(f"{directory}: holds no run (there is no {FILE})")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as database:
            configuration = _configuration(dict(database.execute("SELECT key, value FROM run")), path)
            if configuration is None:
                raise InputError(f"{path}: is not a run store")
            yield database, configuration
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from None


def table_of(configuration: RunConfiguration) -> Table[SampleResult]:
    """The table of samples of a run: with one radius or with several."""
    return AT_RADII if configuration.curve else SAMPLES


def _with_radius(samples: list[SampleResult], eps: str) -> list[SampleResult]:
    """The samples with the only radius of their run, where their table does not have it."""
    return [sample if sample.eps else replace(sample, eps=eps) for sample in samples]


def _configuration(rows: dict[str, str], path: Path) -> RunConfiguration | None:
    """What a run is about, of its keys and values; None where nothing is said yet."""
    if not rows:
        return None
    if rows.get("schema") != str(SCHEMA):
        raise InputError(f"{path}: was written with schema {rows.get('schema')}, this version reads {SCHEMA}")
    known = {field.name: rows[field.name] for field in fields(RunConfiguration) if field.name in rows}
    try:
        found = RunConfiguration(**known)
        if not isinstance(json.loads(found.settings), dict):
            raise TypeError
        return found
    except (TypeError, ValueError):
        raise InputError(f"{path}: does not say what its run is about") from None


def _seconds(database: sqlite3.Connection) -> float:
    return float(database.execute("SELECT ifnull(sum(seconds), 0) FROM sessions").fetchone()[0])
