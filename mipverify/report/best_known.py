"""What is known of each sample of a run, on disk as soon as it is known, and never worse than it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

from mipverify.errors import InputError
from mipverify.report.database import RunDatabase
from mipverify.report.table import Table


class Indexed(Protocol):
    """About one sample."""

    @property
    def index(self) -> int:
        """Of the sample."""


R = TypeVar("R", bound=Indexed)


class BestKnown(Generic[R]):
    """The answers of one run in `DIR/results.sqlite`; opened again with the same question it goes on.

    question: what has to be the same, by name. better: of what is known and another answer. name: of the table that
    holds the question. what: the kind of run, in messages. Raises InputError as `RunDatabase` does, and for another
    question. Use as a context manager, from one thread.
    """

    def __init__(
        self,
        directory: Path,
        question: dict[str, str],
        table: Table[R],
        better: Callable[[R, R], R],
        name: str,
        what: str,
    ):
        self._table, self._better = table, better
        self._database = RunDatabase(directory, name, (table,), what)
        try:
            with self._database.beginning() as (connection, stored):
                if not stored:
                    self._database.describe(connection, question)
                different = sorted(k for k in question.keys() | stored.keys() if stored.get(k) != question.get(k))
                if stored and different:
                    named = ", ".join(f"another {key} ({str(stored.get(key))[:40]})" for key in different)
                    raise InputError(f"{directory}: holds a run with {named}")
        except BaseException:
            self._database.close()
            raise

    def put(self, result: R) -> R:
        """Store an answer, or what it adds to an earlier one; returns what is known now."""
        with self._database.transaction() as connection:
            for before in self._table.read(connection, range(result.index, result.index + 1)):
                result = self._better(before, result)
            self._table.put(connection, [result])
        return result

    def results(self, selection: range) -> list[R]:
        """What is known about some samples, in the order of their index."""
        with self._database.reading():
            return self._table.read(self._database.connection, selection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
