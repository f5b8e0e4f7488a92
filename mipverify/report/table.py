"""Tables of a run: each column is declared once, for the store, the files of tables and the page.

A `Table` is made of `Column`s. From them follow the statements that create, extend, fill and read a table in SQLite,
the rows of CSV and Parquet files and of data frames, and what a page shows.
"""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mipverify.errors import InputError
from mipverify.report.files import Replacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Result = TypeVar("Result")


@dataclass(frozen=True)
class Kind:
    """What values of a column are, and what they become.

    sqlite: type in the store. stored, restored: to and from a value of that type. text: what stands in a CSV file.
    listed: what stands in Parquet. arrow: name of that type, or None for what only the store holds.
    """

    sqlite: str
    stored: Callable[[Any], Any]
    restored: Callable[[Any], Any]
    arrow: str | None
    text: Callable[[Any], Any] = lambda value: value
    listed: Callable[[Any], Any] = lambda value: value


def _floats(blob: bytes) -> NDArray[np.float32]:
    import numpy as np

    return np.frombuffer(blob, dtype="<f4")


def _bytes(array: Any) -> bytes:
    import numpy as np

    return np.ascontiguousarray(array, dtype="<f4").tobytes()


INTEGER = Kind("INTEGER", int, int, "int64")
REAL = Kind("REAL", float, float, "float64")
SECONDS = Kind(
    "REAL", float, float, "float64", text=lambda value: round(value, 6), listed=lambda value: round(value, 6)
)
TEXT = Kind("TEXT", str, str, "string")
INTEGERS = Kind(
    "TEXT",
    lambda value: json.dumps([int(entry) for entry in value]),
    lambda text: tuple(json.loads(text)),
    "list<int64>",
    text=lambda value: " ".join(map(str, value)),
    listed=list,
)
TEXTS = Kind(
    "TEXT",
    lambda value: json.dumps(list(value)),
    lambda text: tuple(json.loads(text)),
    "list<string>",
    text="; ".join,
    listed=list,
)
FLOATS = Kind("BLOB", _bytes, _floats, None)  # float32
JSON = Kind("TEXT", json.dumps, json.loads, None)


@dataclass(frozen=True)
class Shown:
    """A column of the page: its heading, what is shown of a result (by default the value), and how.

    digits: behind the point, for numbers that have some. wide_only: left out on narrow screens. if_any: left out where
    no result has anything there.
    """

    title: str
    of: Callable[[Any], Any] | None = None
    digits: int | None = None
    wide_only: bool = False
    if_any: bool = False


@dataclass(frozen=True)
class Column:
    """One column. `name` is the attribute of a result, and the column of every file.

    nullable: whether None may stand for what is not known.
    allowed: the only texts that there are, in their order on the page.
    older: what a row has that an earlier version wrote without this column. Where there is no such value, runs of that
        version are refused.
    merge: SQL for the value after another attempt at the same row, from the `old` row and the `new` one.
    stored: whether it is in the store; what is not follows from what is.
    tabled: whether it is in the files of tables. value: what stands there, by default the attribute.
    stored_as: its name in the store, where that is another.
    shown: how the page shows it, if it does.
    """

    name: str
    kind: Kind
    nullable: bool = False
    allowed: tuple[str, ...] = ()
    older: Any = None
    merge: str = ""
    stored: bool = True
    tabled: bool = True
    value: Callable[[Any], Any] | None = None
    stored_as: str = ""
    shown: Shown | None = None

    @property
    def column(self) -> str:
        """Its name in the store."""
        return self.stored_as or self.name

    def of(self, result: Any) -> Any:
        """The value of a result, as the tables have it."""
        return getattr(result, self.name) if self.value is None else self.value(result)

    @property
    def default(self) -> str | None:
        """SQL for the value of rows that were written without this column, or None where there is none."""
        if self.older is None:
            return "NULL" if self.nullable else None
        value = self.kind.stored(self.older)
        return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)

    def declaration(self) -> str:
        """The column in a CREATE TABLE statement."""
        parts = [f'"{self.column}"', self.kind.sqlite]
        if not self.nullable:
            parts.append("NOT NULL")
        if self.default is not None:
            parts.append(f"DEFAULT {self.default}")
        if self.allowed:
            parts.append(f"CHECK ({self.column} IN ({', '.join(map(repr, self.allowed))}))")
        return " ".join(parts)


@dataclass(frozen=True)
class Table(Generic[Result]):
    """A table of results, one a row; the first columns are its key, of which the first one is an integer.

    name: in the database. make: a result from its stored attributes, by name. replaces: SQL, whether a stored row is
    replaced by another attempt, from the `old` row and the `new` one. keys: how many columns make the key.
    """

    name: str
    columns: tuple[Column, ...]
    make: Callable[..., Result]
    replaces: str = "1"
    keys: int = 1

    @cached_property
    def _stored(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.stored)

    @cached_property
    def tabled(self) -> tuple[Column, ...]:
        """The columns of CSV and Parquet files and of data frames."""
        return tuple(column for column in self.columns if column.tabled)

    # ---- the store ----

    @property
    def schema(self) -> str:
        """The statement that creates the table where there is none."""
        if self.keys == 1:  # SQLite's own number of the row
            key, *others = self._stored
            declared = [f'"{key.column}" INTEGER PRIMARY KEY', *(column.declaration() for column in others)]
        else:
            declared = [*(column.declaration() for column in self._stored), f"PRIMARY KEY ({self._key})"]
        return f"CREATE TABLE IF NOT EXISTS {self.name} ({', '.join(declared)})"

    @property
    def _key(self) -> str:
        return ", ".join(_quoted(column.column) for column in self._stored[: self.keys])

    def upgrades(self, connection: sqlite3.Connection) -> list[str]:
        """Statements that give the table of an earlier version the columns that it has not; none where it is new.

        Raises InputError where it cannot be continued, with the reason.
        """
        present = self._present(connection)
        if not present:
            return []
        known = {column.column for column in self._stored}
        if foreign := [name for name in present if name not in known]:
            raise InputError(f"has a column {foreign[0]!r} that this version does not know: a newer one wrote it")
        missing = [column for column in self._stored if column.column not in present]
        for column in missing:
            if column.default is None or column in self._stored[: self.keys]:
                raise InputError(
                    f"was begun by a version that did not record {column.column!r}, "
                    "which cannot be told afterwards: begin a new run"
                )
        return [f"ALTER TABLE {self.name} ADD COLUMN {column.declaration()}" for column in missing]

    def _present(self, connection: sqlite3.Connection) -> list[str]:
        return [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (self.name,))]

    def put(self, connection: sqlite3.Connection, results: Iterable[Result]) -> None:
        """Store results, or merge them with what is there."""
        names = [column.column for column in self._stored]
        merged = [f'"{column.column}" = {self._merged(column)}' for column in self._stored[self.keys :]]
        connection.executemany(
            f"INSERT INTO {self.name} AS old ({', '.join(map(_quoted, names))}) VALUES ({', '.join('?' * len(names))}) "
            f"ON CONFLICT ({self._key}) DO UPDATE SET {', '.join(merged)} WHERE {_of_new(self.replaces)}",
            [tuple(self._value(column, result) for column in self._stored) for result in results],
        )

    def update(self, connection: sqlite3.Connection, results: Iterable[Result], names: Sequence[str]) -> None:
        """Store these columns, named as attributes, of results that are there, and nothing else of them."""
        chosen = [column for column in self._stored if column.name in names]
        keys = self._stored[: self.keys]
        assigned, where = ([f"{_quoted(column.column)} = ?" for column in some] for some in (chosen, keys))
        connection.executemany(
            f"UPDATE {self.name} SET {', '.join(assigned)} WHERE {' AND '.join(where)}",
            [tuple(self._value(column, result) for column in (*chosen, *keys)) for result in results],
        )

    @staticmethod
    def _merged(column: Column) -> str:
        return _of_new(column.merge) if column.merge else f'excluded."{column.column}"'

    @staticmethod
    def _value(column: Column, result: Result) -> Any:
        value = getattr(result, column.name)
        return None if value is None else column.kind.stored(value)

    def read(self, connection: sqlite3.Connection, selection: range | None = None) -> list[Result]:
        """Results in the order of their keys, those of a range or all; also those that an earlier version wrote."""
        self.upgrades(connection)  # raises where there is no telling what is missing
        present = self._present(connection)
        first = _quoted(self._stored[0].column)
        chosen = [
            _quoted(column.column) if column.column in present else str(column.default) for column in self._stored
        ]
        where, ends = "", tuple[int, ...]()
        if selection is not None:
            where, ends = f"WHERE {first} >= ? AND {first} < ?", (selection.start, selection.stop)
        rows = connection.execute(f"SELECT {', '.join(chosen)} FROM {self.name} {where} ORDER BY {self._key}", ends)
        return [
            self.make(
                **{
                    column.name: None if value is None else column.kind.restored(value)
                    for column, value in zip(self._stored, row, strict=True)
                }
            )
            for row in rows
        ]

    # ---- files of tables ----

    def record(self, result: Result) -> dict[str, Any]:
        """One row of the CSV file, by column."""
        values = ((column, column.of(result)) for column in self.tabled)
        return {column.name: None if value is None else column.kind.text(value) for column, value in values}

    def write_csv(self, path: Path, results: Sequence[Result]) -> None:
        """The table as text. The file is replaced as a whole: a reader never sees half of one."""
        with Replacing(path) as file:
            writer = csv.DictWriter(file, [column.name for column in self.tabled], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.record(result) for result in results)

    def arrow(self, results: Sequence[Result]) -> Any:
        """The table for pyarrow, with lists where the CSV file has text."""
        import pyarrow as pa
        from pyarrow.json import ParseOptions, ReadOptions, read_json

        types = {"list<int64>": pa.list_(pa.int64()), "list<string>": pa.list_(pa.string())}
        names = {column.name: str(column.kind.arrow) for column in self.tabled}
        schema = pa.schema({name: types.get(kind) or pa.type_for_alias(kind) for name, kind in names.items()})
        if not results:
            return schema.empty_table()
        # Arrays made of Python's lists would take as long as importing pandas, which pyarrow then does.
        lines = "\n".join(json.dumps(self._listed(result), default=lambda value: value.item()) for result in results)
        content = lines.encode()
        how = ParseOptions(explicit_schema=schema)
        return read_json(io.BytesIO(content), ReadOptions(block_size=len(content) + 1), how)

    def _listed(self, result: Result) -> dict[str, Any]:
        values = ((column, column.of(result)) for column in self.tabled)
        return {column.name: None if value is None else column.kind.listed(value) for column, value in values}

    def dataframe(self, results: Sequence[Result]) -> Any:
        """The table as a pandas DataFrame, with the key as its index. Raises ImportError if pandas is missing."""
        import pandas as pd

        frame = pd.DataFrame.from_records(
            [self.record(result) for result in results], columns=[column.name for column in self.tabled]
        )
        return frame.set_index([column.name for column in self._stored[: self.keys]])

    # ---- the page ----

    def shown(self, results: Sequence[Result]) -> dict[str, Any]:
        """The table for the page's script: `columns` with their headings, and `rows`, where texts are numbers.

        A text is the place of what it says in the `texts` of its column: most of them are one of a few.
        """
        columns, values = [], []
        for column in self.columns:
            if column.shown is None:
                continue
            found = [_shown(column, result) for result in results]
            if column.shown.if_any and not any(found):
                continue
            texts: list[str] | None = None
            if any(isinstance(value, str) for value in found) or column.kind is TEXT:
                texts = list(column.allowed) or sorted({str(value) for value in found if value is not None})
                at = {text: number for number, text in enumerate(texts)}
                found = [None if value is None else at[str(value)] for value in found]
            columns.append(
                {
                    "name": column.name,
                    "title": column.shown.title,
                    "texts": texts,
                    "digits": column.shown.digits,
                    "wide": column.shown.wide_only,
                }
            )
            values.append(found)
        return {"columns": columns, "rows": [list(row) for row in zip(*values, strict=True)]}


def _shown(column: Column, result: Any) -> Any:
    assert column.shown is not None
    return column.of(result) if column.shown.of is None else column.shown.of(result)


def _of_new(sql: str) -> str:
    """`new` is what SQLite calls `excluded`."""
    return sql.replace("new.", "excluded.")


def _quoted(name: str) -> str:
    return f'"{name}"'
