"""The command `report` from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mipverify.cli import report as module
from mipverify.cli.exits import DONE, INTERNAL
from mipverify.cli.main import main
from mipverify.errors import InputError
from mipverify.report.database import StoreError


@pytest.fixture
def command(fake, monkeypatch):
    from mipverify.report import run

    class FakeLimits(run.Limits):
        def __init__(self, *values, **named):
            super().__init__(*values, **named, verifier="fake_verifier:verify_batch")

    monkeypatch.setattr(run, "Limits", FakeLimits)
    return module.report


def test_json_is_the_summary(command, fake, network, make_data, tmp_path, capfd):
    data = make_data([fake.HOLDS, fake.VIOLATED, fake.UNKNOWN])
    assert command(network, data, "0.1", out=str(tmp_path / "run"), workers=0, json=True) == DONE
    printed = capfd.readouterr().out
    assert json.loads(printed) == json.loads((tmp_path / "run" / "summary.json").read_text())


def test_the_table_names_the_interval_and_the_page(command, fake, network, make_data, tmp_path, capfd):
    data = make_data([fake.HOLDS, fake.VIOLATED, fake.UNKNOWN, fake.HOLDS])
    out = tmp_path / "run"
    assert command(network, data, "0.1", out=str(out), workers=0, verbose=True) == DONE
    printed = capfd.readouterr()
    assert "25.00% to 50.00%" in printed.out
    assert str(out / "report.html") in printed.out
    assert "/4 done" in printed.err
    assert command(network, data, "0.1", out=str(out), workers=0, quiet=True) == DONE
    assert capfd.readouterr() == ("25.00% to 50.00%\n", "")


def test_what_is_missing_is_named():
    with pytest.raises(InputError, match=r"--data FILE and --out DIR"):
        module.report("net.onnx", eps="0.1")
    with pytest.raises(InputError, match="--retry"):
        module.report("net.onnx", "data.npz", "0.1", out="run", retry="holds")
    with pytest.raises(InputError, match="--compare"):
        module.report("net.onnx", compare=("a", "b"))
    with pytest.raises(InputError, match="--workers"):
        module.report("net.onnx", "data.npz", "0.1", out="run", workers=-1)


def test_a_store_that_fails_ends_in_one_line(command, fake, network, make_data, tmp_path, monkeypatch, capfd):
    def full(*_, **__):
        raise StoreError("run/results.sqlite: cannot be written (database or disk is full)")

    monkeypatch.setattr("mipverify.report.store.RunStore.put", full)
    data = make_data([fake.HOLDS])
    asked = ["report", network, "--data", data, "--eps", "0.1", "--workers", "0", "--out", str(tmp_path / "run")]
    assert main(asked) == INTERNAL
    assert capfd.readouterr().err.splitlines() == [
        "mipverify: error: run/results.sqlite: cannot be written (database or disk is full)"
    ]


def test_compare(command, fake, network, make_data, tmp_path, capfd):
    data = make_data([fake.HOLDS, fake.UNKNOWN, fake.VIOLATED])
    for name in ("one", "two"):
        command(network, data, "0.1", out=str(tmp_path / name), workers=0, quiet=True)
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    capfd.readouterr()
    assert module.report(compare=(one, two), out=str(tmp_path)) == DONE
    assert "no verdict differs" in capfd.readouterr().out
    assert (tmp_path / "compare.html").is_file()

    import sqlite3

    with sqlite3.connect(Path(two) / "results.sqlite") as database:
        database.execute("UPDATE samples SET verdict = 'holds' WHERE sample = 2")
    database.close()
    assert module.report(compare=(one, two), out=str(tmp_path)) == INTERNAL
    printed = capfd.readouterr()
    assert "CONTRADICTION" in printed.out
    assert "contradict each other on 1 sample" in printed.err
    assert module.report(compare=(one, two), out=str(tmp_path), json=True) == INTERNAL
    assert json.loads(capfd.readouterr().out)["contradictions"] == [2]
