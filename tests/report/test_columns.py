"""A column is declared once; runs that an earlier version began go on, or are refused with the reason."""

from __future__ import annotations

import csv
import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mipverify.errors import InputError
from mipverify.report.store import RunStore, read_run
from mipverify.report.table import INTEGER, INTEGERS, REAL, SECONDS, TEXT, TEXTS, Column, Shown, Table

# As the first version that wrote stores did.
FIRST = """
CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, seconds REAL NOT NULL, finished INTEGER NOT NULL,
    version TEXT NOT NULL, options TEXT NOT NULL{memory});
CREATE TABLE samples (
    sample INTEGER PRIMARY KEY, label INTEGER NOT NULL, predicted INTEGER NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('misclassified', 'holds', 'violated', 'unknown')),
    stage TEXT NOT NULL, seconds REAL NOT NULL, margin_lower_bound REAL, adversarial BLOB, adversarial_label INTEGER,
    unstable TEXT NOT NULL, nodes INTEGER NOT NULL, reason TEXT NOT NULL, trusted TEXT NOT NULL);
INSERT INTO samples VALUES (3, 7, 7, 'unknown', 'milp', 2.5, -0.5, NULL, NULL, '[4, 2]', 9, 'time', '["highs"]');
INSERT INTO samples VALUES (4, 1, 1, 'holds', 'crown', 0.5, 0.25, NULL, NULL, '[]', 0, '', '[]');
"""
MEMORY = ", peak_memory INTEGER NOT NULL DEFAULT 0"


def write_store(folder: Path, configuration, schema: str = FIRST, memory: str = MEMORY) -> None:
    folder.mkdir(exist_ok=True)
    with sqlite3.connect(folder / "results.sqlite") as database:
        database.executescript(schema.format(memory=memory))
        about = {"schema": "1", **configuration.__dict__}
        database.executemany("INSERT INTO run VALUES (?, ?)", list(about.items()))
    database.close()


@pytest.mark.parametrize("memory", [MEMORY, ""], ids=["as it is", "without a column that has a value for old rows"])
def test_a_run_of_an_earlier_version_goes_on(tmp_path, configuration, make_results, memory):
    write_store(tmp_path, configuration, memory=memory)
    _, before, _ = read_run(tmp_path)
    with RunStore(tmp_path, configuration, version="1", options={}) as store:
        assert [(r.index, r.verdict, r.unstable, r.trusted) for r in store.results()] == [
            (3, "unknown", (4, 2), ("highs",)),
            (4, "holds", (), ()),
        ]
        again = replace(before[0], verdict="holds", margin_lower_bound=0.125, seconds=1.5, nodes=1)
        store.put([again, replace(before[1], verdict="violated")])
        store.finish(12345)
        first, second = store.results()
        assert (first.verdict, first.margin_lower_bound, first.seconds, first.nodes) == ("holds", 0.125, 4.0, 10)
        assert second.verdict == "holds", "a decision is never replaced"
        assert store.peak_memory() == 12345


def test_a_run_that_lacks_what_cannot_be_told_is_refused_and_kept(tmp_path, configuration):
    write_store(tmp_path, configuration)
    with sqlite3.connect(tmp_path / "results.sqlite") as database:
        database.execute("ALTER TABLE samples DROP COLUMN stage")
    database.close()
    before = (tmp_path / "results.sqlite").read_bytes()
    with pytest.raises(InputError, match=r"results\.sqlite: .*did not record 'stage'.*begin a new run"):
        RunStore(tmp_path, configuration, version="1", options={})
    with pytest.raises(InputError, match=r"results\.sqlite: .*did not record 'stage'"):
        read_run(tmp_path)
    assert (tmp_path / "results.sqlite").read_bytes() == before


def test_a_run_of_a_newer_version_is_refused(tmp_path, configuration):
    write_store(tmp_path, configuration)
    with sqlite3.connect(tmp_path / "results.sqlite") as database:
        database.execute("ALTER TABLE samples ADD COLUMN colour TEXT")
    database.close()
    with pytest.raises(InputError, match="'colour' that this version does not know: a newer one wrote it"):
        RunStore(tmp_path, configuration, version="1", options={})


def test_another_question_leaves_an_earlier_store_as_it_was(tmp_path, configuration):
    write_store(tmp_path, configuration, memory="")
    with pytest.raises(InputError, match="another eps"):
        RunStore(tmp_path, replace(configuration, eps="0.2"), version="1", options={})
    with sqlite3.connect(tmp_path / "results.sqlite") as database:
        columns = [name for (name,) in database.execute("SELECT name FROM pragma_table_info('sessions')")]
    database.close()
    assert "peak_memory" not in columns


@dataclass(frozen=True)
class Weather:
    """A result with a value of each kind."""

    day: int
    place: str
    rain: float | None = None
    spent: float = 0.0
    hours: tuple[int, ...] = ()
    clouds: tuple[str, ...] = ()
    wind: int = 0


OLD = Table[Weather](
    "days",
    (
        Column("day", INTEGER, stored_as="number", shown=Shown("Day")),
        Column("place", TEXT, allowed=("Oslo", "Rome"), shown=Shown("Place")),
        Column("rain", REAL, nullable=True, shown=Shown("Rain", digits=2)),
        Column("spent", SECONDS, merge="old.spent + new.spent"),
        Column("hours", INTEGERS),
        Column("clouds", TEXTS),
    ),
    Weather,
)
NEW = replace(
    OLD,
    columns=(
        *OLD.columns,
        Column("wind", INTEGER, older=7, merge="max(old.wind, new.wind)", shown=Shown("Wind")),
        Column("wet", TEXT, stored=False, value=lambda day: "yes" if day.rain else "no", shown=Shown("Wet")),
    ),
)
DAYS = [
    Weather(2, "Rome", None, 1.23456789, (1, 2), ("cirrus", "o'clouds")),
    Weather(1, "Oslo", 3.5, 2.0, (), (), 12),
]


def test_one_declaration_reaches_the_store_the_tables_and_the_page(tmp_path):
    database = sqlite3.connect(":memory:")
    database.execute(OLD.schema)
    OLD.put(database, DAYS)
    assert [day.wind for day in OLD.read(database)] == [0, 0]
    assert [day.wind for day in NEW.read(database)] == [7, 7], "read as it is, as another process may"
    for statement in NEW.upgrades(database):
        database.execute(statement)
    assert NEW.upgrades(database) == []
    NEW.put(database, DAYS)
    merged = NEW.read(database)
    assert merged == [
        Weather(1, "Oslo", 3.5, 4.0, (), (), 12),
        Weather(2, "Rome", None, 2.46913578, (1, 2), ("cirrus", "o'clouds"), 7),
    ]
    assert NEW.read(database, range(2, 5)) == merged[1:]
    with pytest.raises(sqlite3.IntegrityError):
        NEW.put(database, [Weather(5, "Paris")])

    NEW.write_csv(tmp_path / "days.csv", merged)
    with (tmp_path / "days.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {
        "day": "2",
        "place": "Rome",
        "rain": "",
        "spent": "2.469136",
        "hours": "1 2",
        "clouds": "cirrus; o'clouds",
        "wind": "7",
        "wet": "no",
    }
    page = NEW.shown(merged)
    assert [column["title"] for column in page["columns"]] == ["Day", "Place", "Rain", "Wind", "Wet"]
    assert page["rows"] == [[1, 0, 3.5, 12, 1], [2, 1, None, 7, 0]]
    assert page["columns"][1]["texts"] == ["Oslo", "Rome"]
    assert page["columns"][4]["texts"] == ["no", "yes"]


def test_the_same_in_frames():
    pytest.importorskip("pyarrow")
    table = NEW.arrow(DAYS)
    assert str(table.schema.field("clouds").type).startswith("list<")
    assert table.to_pylist()[0] == {
        "day": 2,
        "place": "Rome",
        "rain": None,
        "spent": 1.234568,
        "hours": [1, 2],
        "clouds": ["cirrus", "o'clouds"],
        "wind": 0,
        "wet": "no",
    }
    assert NEW.arrow([]).schema == table.schema, "also of no rows"
    pytest.importorskip("pandas")
    assert NEW.dataframe(DAYS).loc[1, "wind"] == 12
    assert NEW.dataframe([]).index.name == "day"
