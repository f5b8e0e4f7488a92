"""The database of a run: one SQLite file in its folder, which one process at a time may write."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mipverify.errors import InputError, MipverifyError, one_line
from mipverify.report.files import refuse_links
from mipverify.report.lock import LOCK, DirectoryLock
from mipverify.report.table import Table

FILE = "results.sqlite"
FILES = (LOCK, *(FILE + suffix for suffix in ("", "-journal", "-wal", "-shm")))  # what SQLite opens by itself


def is_run(directory: str | Path) -> bool:
    """Whether a folder is that of a run."""
    return (Path(directory) / FILE).is_file()


class StoreError(MipverifyError):
    """The store cannot be written, e.g. because the disk is full. What was stored before stays."""


@contextmanager
def publishing(directory: Path, what: str) -> Iterator[None]:
    """Inside, `what` of a run is written into its folder; where that is not possible, StoreError says what is kept."""
    try:
        yield
    except OSError as error:
        if not (directory / FILE).exists():
            raise StoreError(f"{directory}: was removed while the run went on, and its results with it") from None
        raise StoreError(
            f"{directory}: {what} cannot be written ({error.strerror}); the results are kept, "
            "the same command tries again"
        ) from None


class RunDatabase:
    """`DIR/results.sqlite`, locked, with a table of keys and values about the run and the `tables` of its results.

    about: the name of the first. kind: what the run is called in messages. What is committed is on disk.
    Raises InputError if the folder cannot be written, another process holds it, or the file is anything else than the
    database of such a run, or that of a version that cannot be continued. Use as a context manager, from one thread.
    """

    def __init__(self, directory: Path, about: str, tables: Sequence[Table[Any]], kind: str):
        self.path = directory / FILE
        self._about, self._tables = about, tables
        try:
            directory.mkdir(parents=True, exist_ok=True)
            refuse_links(directory, FILES)
            self._lock = DirectoryLock(directory)
        except OSError as error:
            raise InputError(f"--out {directory}: cannot be written ({error.strerror})") from None
        try:
            with self.access():
                self.connection = sqlite3.connect(self.path, isolation_level=None)
        except BaseException:
            self._lock.close()
            raise
        try:
            with self.access():
                self._prepare(kind)
        except BaseException:
            self.close()
            raise

    def _prepare(self, kind: str) -> None:
        execute = self.connection.execute
        execute("PRAGMA busy_timeout = 5000")
        found = {name for (name,) in execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        columns = [name for (name,) in execute("SELECT name FROM pragma_table_info(?)", (self._about,))]
        if found and columns != ["key", "value"]:
            raise InputError(f"{self.path}: is not the store of {kind}, or of another version")
        self._upgrades()
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")

    def _upgrades(self) -> list[str]:
        try:
            return [statement for table in self._tables for statement in table.upgrades(self.connection)]
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None

    @contextmanager
    def beginning(self) -> Iterator[tuple[sqlite3.Connection, dict[str, str]]]:
        """The transaction in which a run begins or goes on; gives what the store says about it, by key.

        Tables are made, or get the columns that an earlier version did not have, if the block ends without an error.
        """
        with self.transaction() as connection:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self._about} (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
            )
            for statement in [*self._upgrades(), *(table.schema for table in self._tables)]:
                connection.execute(statement)
            yield connection, dict(connection.execute(f"SELECT key, value FROM {self._about}"))

    def describe(self, connection: sqlite3.Connection, about: dict[str, str]) -> None:
        """Note what a new run is about, within `beginning`."""
        connection.executemany(f"INSERT INTO {self._about} VALUES (?, ?)", list(about.items()))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written in the block is on disk at its end, or none of it and StoreError is raised."""
        with self.access():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    @contextmanager
    def access(self) -> Iterator[None]:
        """Inside, errors of the database become InputError or StoreError."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            no_text = not code and isinstance(error, sqlite3.OperationalError)  # raised by Python, not by SQLite
            if no_text or code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise InputError(f"{self.path}: is not a run store, or a damaged one ({error})") from None
            if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
                raise InputError(f"{self.path}: cannot be written ({error})") from None
            raise StoreError(
                f"{self.path}: cannot be written ({error}); what was finished is kept, the same command continues"
            ) from None
        except UnicodeDecodeError as error:  # in a name of the schema
            raise InputError(f"{self.path}: is not a run store, or a damaged one ({one_line(error)})") from None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """`access`, where what is read is also made sense of: what makes none is damaged."""
        try:
            with self.access():
                yield
        except MipverifyError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{self.path}: is damaged ({one_line(error)})") from None

    def close(self) -> None:
        self.connection.close()
        self._lock.close()
