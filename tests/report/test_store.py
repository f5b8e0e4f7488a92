"""The run store keeps what is finished, refuses another question, and only ever gets better."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipverify.engine.sample import SampleResult
from mipverify.errors import InputError
from mipverify.report.configuration import canonical_eps, parse_samples
from mipverify.report.database import StoreError
from mipverify.report.store import RunStore, read_run


def opened(directory, configuration) -> RunStore:
    return RunStore(directory, configuration, version="0", options={})


def test_what_is_stored_comes_back(tmp_path, configuration, make_results):
    results = make_results(20)
    with opened(tmp_path, configuration) as store:
        store.put(results)
    with opened(tmp_path, configuration) as store:
        back = store.results()
        assert store.sessions() == 2
    for before, after in zip(results, back, strict=True):
        if before.adversarial is not None:
            assert np.array_equal(before.adversarial, after.adversarial)
        assert replace(before, adversarial=None).__repr__() == replace(after, adversarial=None).__repr__()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"network_sha256": "x"}, "network"),
        ({"data_sha256": "x"}, "data"),
        ({"labels_sha256": "x"}, "data"),
        ({"eps": "0.2"}, "eps"),
        ({"norm": "l2"}, "norm"),
    ],
)
def test_another_question_is_refused(tmp_path, configuration, make_results, change, named):
    with opened(tmp_path, configuration) as store:
        store.put(make_results(3))
    with pytest.raises(InputError, match=f"another {named}"):
        opened(tmp_path, replace(configuration, **change))
    with opened(tmp_path, replace(configuration, network="moved.onnx")) as store:
        assert len(store.results()) == 3


def test_one_process_at_a_time(tmp_path, configuration):
    with opened(tmp_path, configuration), pytest.raises(InputError, match="another run"):
        opened(tmp_path, configuration)
    opened(tmp_path, configuration).close()


verdicts = st.sampled_from(["misclassified", "holds", "violated", "unknown"])
margins = st.none() | st.floats(-10, 10)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(verdicts, margins), min_size=1, max_size=6))
def test_results_only_get_better(tmp_path_factory, attempts):
    from mipverify.report.configuration import RunConfiguration

    configuration = RunConfiguration("n", "a", "d", "b", "c", "0.1", "linf")
    with opened(tmp_path_factory.mktemp("run"), configuration) as store:
        for verdict, margin in attempts:
            store.put([SampleResult(0, 0, 0, verdict, "s", 1.0, margin)])
        (kept,) = store.results()
    decided = [at for at, (verdict, _) in enumerate(attempts) if verdict != "unknown"]
    if decided:
        assert (kept.verdict, kept.margin_lower_bound) == attempts[decided[0]]
        assert kept.seconds == decided[0] + 1
    else:
        known = [margin for _, margin in attempts if margin is not None]
        assert kept.verdict == "unknown"
        assert kept.margin_lower_bound == (max(known) if known else None)


def test_a_file_that_is_no_store(tmp_path, configuration):
    (tmp_path / "results.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(InputError, match="not a run store"):
        opened(tmp_path, configuration)
    with pytest.raises(InputError, match="cannot be read"):
        read_run(tmp_path)


DAMAGES = {
    "text in the table of samples": "UPDATE samples SET trusted = CAST(X'5b22ff225d' AS TEXT)",
    "a list in the table of samples": "UPDATE samples SET unstable = '[1, 2'",
    "the question": "UPDATE run SET value = CAST(X'30ff' AS TEXT) WHERE key = 'eps'",
    "the settings": "UPDATE run SET value = '{' WHERE key = 'settings'",
    "the settings' kind": "UPDATE run SET value = '3' WHERE key = 'settings'",
    "options of a session": "UPDATE sessions SET options = '{'",
    "seconds of a session": "UPDATE sessions SET seconds = 'soon'",
    "memory of a session": "UPDATE sessions SET peak_memory = CAST(X'ff' AS TEXT)",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_refused(damage, tmp_path, configuration, make_results):
    with opened(tmp_path, configuration) as store:
        store.put(make_results(4))
    with sqlite3.connect(tmp_path / "results.sqlite") as database:
        assert database.execute(DAMAGES[damage]).rowcount in (1, 4)

    def all_of_it(wanted):
        with RunStore(tmp_path, wanted, version="0", options={}) as store:
            return store.results(), store.seconds(), store.sessions(), store.peak_memory(), store.last_session()

    if "session" not in damage:
        for wanted in (None, configuration):
            with pytest.raises(InputError, match=r"damaged|cannot be read|does not say"):
                all_of_it(wanted)
    elif "seconds" in damage:  # text counts as zero for SQLite
        assert len(all_of_it(None)[0]) == 4
    else:
        with pytest.raises(InputError, match="damaged"):
            all_of_it(None)
    if "options" not in damage and "memory" not in damage and "seconds" not in damage:
        with pytest.raises(InputError, match=r"damaged|cannot be read|does not say"):
            read_run(tmp_path)


def test_a_name_that_is_no_text(tmp_path, configuration, make_results):
    with opened(tmp_path, configuration) as store:
        store.put(make_results(4))
    path = tmp_path / "results.sqlite"
    path.write_bytes(path.read_bytes().replace(b"trusted", b"\xffrusted"))
    for read in (lambda: read_run(tmp_path), lambda: opened(tmp_path, configuration)):
        with pytest.raises(InputError, match=r"damaged|cannot be read"):
            read()


def test_a_directory_that_cannot_be_made(tmp_path, configuration):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        opened(tmp_path / "file" / "run", configuration)


def test_a_full_disk_loses_nothing_that_was_stored(tmp_path, configuration):
    """A limit on the size of files stands for the full disk: it holds for every user and needs no mount."""
    script = f"""
import pathlib, resource, signal, sys
import numpy as np
from mipverify.engine.sample import SampleResult
from mipverify.report.configuration import RunConfiguration
from mipverify.report.database import StoreError
from mipverify.report.store import RunStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = RunStore(pathlib.Path({str(tmp_path)!r}), RunConfiguration(
    **{configuration.__dict__!r}), version="0", options={{}})
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
for index in range(1000):
    try:
        store.put([SampleResult(index, 0, 0, "violated", "attack", 1.0, None, np.zeros(1000, np.float32), 1)])
    except StoreError as error:
        print(error)
        sys.exit(9)
    print(index, flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    *stored, message = done.stdout.splitlines()
    assert "what was finished is kept" in message
    assert 10 < len(stored) < 1000
    with opened(tmp_path, configuration) as store:
        assert [result.index for result in store.results()] == list(range(len(stored)))
        store.put([SampleResult(5000, 0, 0, "holds", "crown", 1.0)])  # there is space again
        assert len(store.results()) == len(stored) + 1


def test_a_full_file_system(tmp_path, configuration):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs is not permitted here")
    try:
        stored = 0
        with opened(disk, configuration) as store:
            point = np.zeros(1000, np.float32)

            def fill() -> None:
                nonlocal stored
                for index in range(1000):
                    store.put([SampleResult(index, 0, 0, "violated", "attack", 1.0, None, point, 1)])
                    stored += 1

            with pytest.raises(StoreError, match="full"):
                fill()
            assert len(store.results()) == stored > 0
        _, results, _ = read_run(disk)
        assert len(results) == stored
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_every_commit_is_synced(tmp_path, configuration):
    with opened(tmp_path, configuration) as store:
        assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert not list(Path(tmp_path).glob("*-wal"))
    with sqlite3.connect(tmp_path / "results.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.1", "0.1"), ("0.100", "0.1"), ("1e-1", "0.1"), (".1", "0.1"), ("2", "2"), ("0", "0"), ("10", "10")],
)
def test_equal_radii_are_the_same_question(text, expected):
    assert canonical_eps(text) == expected


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "a tenth", ""])
def test_what_is_no_radius(text):
    with pytest.raises(InputError, match="--eps"):
        canonical_eps(text)


def test_ranges_of_samples():
    assert parse_samples(None, 5) == range(5)
    assert parse_samples("1:3", 5) == range(1, 3)
    assert parse_samples(":3", 5) == range(3)
    assert parse_samples("3:", 5) == range(3, 5)
    for wrong in ("5:6", "0:6", "3:3", "4:2", "3", "-1:3", "a:b", "0:4:2"):
        with pytest.raises(InputError, match="--samples"):
            parse_samples(wrong, 5)
