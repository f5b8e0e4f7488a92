"""A run from question to tables: interrupted, continued, retried, and always the same in the end."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mipverify.cluster import SampleJob
from mipverify.errors import InputError
from mipverify.report.run import adversarial_accuracy
from mipverify.report.store import read_run
from mipverify.report.summary import Counts

KINDS = ["HOLDS", "HOLDS", "WRONG", "VIOLATED", "OPEN_HOLDS", "HOLDS", "UNKNOWN", "OPEN_VIOLATED"]


def fates_of(fake, count):
    return [getattr(fake, KINDS[index % len(KINDS)]) for index in range(count)]


def rows_of(directory):
    with (Path(directory) / "samples.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def without_time(results):
    return [
        (r.index, r.label, r.predicted, r.verdict, r.stage, r.margin_lower_bound, r.adversarial_label, r.unstable)
        for r in results
    ]


def test_tables_and_summary_agree(fake, run, make_data, tmp_path):
    result = run(make_data(fates_of(fake, 80)))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    rows = rows_of(tmp_path / "run")
    assert [int(row["index"]) for row in rows] == list(range(80))
    for verdict, expected in {"misclassified": 10, "holds": 40, "violated": 20, "unknown": 10}.items():
        assert summary[verdict] == expected == sum(row["verdict"] == verdict for row in rows)
    assert summary["samples"] == 80
    assert summary["clean_error"] == 10 / 80
    assert summary["adversarial_error"] == {"lower": 30 / 80, "upper": 40 / 80}
    assert summary == result.summary
    assert summary["trusted"] == {"highs 1.14.0": 10}
    assert summary["peak_memory_of_a_worker"] > 1e6
    assert (tmp_path / "run" / "report.html").is_file()


def test_parquet_holds_the_same(fake, run, make_data, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    run(make_data(fates_of(fake, 16)))
    table = parquet.read_table(tmp_path / "run" / "samples.parquet").to_pylist()
    assert [row["verdict"] for row in table] == [row["verdict"] for row in rows_of(tmp_path / "run")]
    assert table[0]["unstable"] == [3, 1]


def test_a_finished_run_is_not_run_again(fake, run, make_data, monkeypatch):
    data = make_data(fates_of(fake, 40))
    before = run(data)

    def fail(*_, **__):
        raise AssertionError("nothing was left to run")

    monkeypatch.setattr("mipverify.report.run.open_executor", fail)
    after = run(data, timeout=7.0, solver="cbc", seed=3)
    assert without_time(after.samples) == without_time(before.samples)
    assert after.summary["sessions"] == 2
    assert after.summary["peak_memory_of_a_worker"] == before.summary["peak_memory_of_a_worker"]


def test_samples_may_grow_and_the_summary_covers_what_was_asked(fake, run, make_data, tmp_path):
    data = make_data(fates_of(fake, 64))
    assert run(data, samples="8:24").summary["samples"] == 16
    grown = run(data, samples="16:48")
    assert [sample.index for sample in grown.samples] == list(range(16, 48))
    assert [int(row["index"]) for row in rows_of(tmp_path / "run")] == list(range(16, 48))
    _, stored, _ = read_run(tmp_path / "run")
    assert [sample.index for sample in stored] == list(range(8, 48))


def test_another_question_in_the_same_directory_is_refused(fake, run, make_data):
    data = make_data(fates_of(fake, 8))
    run(data)
    with pytest.raises(InputError, match=r"another eps \(0\.1\)"):
        run(data, eps="0.2")
    with pytest.raises(InputError, match="another data"):
        run(make_data(fates_of(fake, 9), "other.npz"))
    run(data, eps="0.10")


def test_retry_runs_only_what_is_unknown(fake, run, make_data, monkeypatch):
    data = make_data(fates_of(fake, 40))
    before = run(data)
    ran = []
    real = fake.result

    def better(image, label, index, fate, *, only_cheap):
        ran.append(index)
        return real(image, label, index, fake.OPEN_HOLDS if index == 6 else fate, only_cheap=only_cheap)

    monkeypatch.setattr(fake, "result", better)
    after = run(data, retry_unknown=True)
    assert set(ran) == {sample.index for sample in before.samples if sample.verdict == "unknown"}
    changed = {a.index for a, b in zip(after.samples, before.samples, strict=True) if a.verdict != b.verdict}
    assert changed == {6}
    assert after.samples[6].verdict == "holds"


def test_only_linf_can_be_asked_for(fake, run, make_data):
    with pytest.raises(InputError, match="linf"):
        run(make_data([fake.HOLDS]), norm="l2")


def test_labels_that_the_network_does_not_have(fake, run, tmp_path):
    np.savez(tmp_path / "wrong.npz", images=np.zeros((3, 4), np.float32), labels=np.array([0, 1, 10]))
    with pytest.raises(InputError, match="sample 2 has the label 10"):
        run(str(tmp_path / "wrong.npz"))


def test_progress_counts_up_to_the_end(fake, run, make_data):
    seen = []
    run(make_data(fates_of(fake, 80)), progress=seen.append)
    done = [status.counts.samples for status in seen]
    assert done == sorted(done)
    assert done[-1] == 80
    assert seen[-1].lower == 30 / 80
    assert seen[-1].upper == 40 / 80
    assert all(first.lower <= last.lower and first.upper >= last.upper for first, last in pairwise(seen))


def test_from_python_with_arrays(fake, network, monkeypatch, tmp_path):
    monkeypatch.setattr("mipverify.report.run.SampleJob", partial(SampleJob, verifier="fake_verifier:verify_batch"))
    images = np.zeros((16, 4), np.float32)
    images[:, 0] = fates_of(fake, 16)
    labels = np.arange(16) % 10
    result = adversarial_accuracy(network, images, labels, 0.1, workers=0, timeout=1.0)
    assert result.directory is None
    assert result.summary["samples"] == 16
    assert result.summary["eps"] == "0.1"
    pandas = pytest.importorskip("pandas")
    frame = result.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.index) == list(range(16))
    kept = adversarial_accuracy(network, images, labels, "0.1", workers=0, out=tmp_path / "kept")
    assert (kept.directory / "report.html").is_file()
    with pytest.raises(InputError, match="labels"):
        adversarial_accuracy(network, images, labels[:5], "0.1")


@pytest.mark.slow
def test_killed_twenty_times_and_continued(fake, run, make_data, network, tmp_path):
    """`kill -9` at random moments, each time followed by the same command, changes nothing in the end."""
    chance = random.Random()
    data = make_data(fates_of(fake, 240))
    expected = run(data, out=tmp_path / "whole")
    out = tmp_path / "killed"
    script = (
        "import sys\n"
        "from mipverify.report.run import Limits, run_report\n"
        "limits = Limits(workers=int(sys.argv[4]), verifier='fake_verifier:verify_batch')\n"
        "print(flush=True)\n"
        "progress = lambda status: print(status.counts.samples, flush=True)\n"
        "run_report(sys.argv[1], sys.argv[2], '0.1', out=sys.argv[3], limits=limits, progress=progress)\n"
    )
    path = os.pathsep.join([str(Path(fake.__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"FAKE_DELAY": "0.004", "PYTHONPATH": path}
    before: dict[int, str] = {}
    grown: list[int] = []
    for kill in range(21):
        with subprocess.Popen(
            [sys.executable, "-c", script, network, data, str(out), str(kill % 2)],
            env=environment,
            stdout=subprocess.PIPE,
        ) as process:
            process.stdout.readline()  # imports are over: what follows is the run
            if kill < 20:
                # Most of them after some more samples, which come late on a slow machine; the others before any.
                enough = len(before) + chance.randrange(20) if kill % 5 else 0
                while (line := process.stdout.readline()) and int(line) < enough:
                    pass
                time.sleep(chance.uniform(0, 0.02))
                process.send_signal(signal.SIGKILL)
            else:
                process.communicate()
        if not (out / "results.sqlite").is_file():
            continue
        try:
            _, stored, _ = read_run(out)
        except InputError:  # killed while the tables were being made
            continue
        now = {sample.index: sample.verdict for sample in stored}
        assert now.items() >= before.items(), "a finished sample was lost or changed"
        before = now
        grown.append(len(now))
    assert process.returncode == 0
    assert len(set(grown)) > 5, "no kill fell into the run"
    _, final, _ = read_run(out)
    assert without_time(final) == without_time(expected.samples)
    drop = ("seconds",)
    assert [{k: v for k, v in row.items() if k not in drop} for row in rows_of(out)] == [
        {k: v for k, v in row.items() if k not in drop} for row in rows_of(tmp_path / "whole")
    ]


def test_interrupting_keeps_what_is_finished(fake, run, make_data, tmp_path):
    def interrupt(status):
        if status.counts.samples >= 20:
            raise KeyboardInterrupt

    data = make_data(fates_of(fake, 200))
    with pytest.raises(KeyboardInterrupt):
        run(data, workers=1, progress=interrupt)
    _, stored, _ = read_run(tmp_path / "run")
    assert len(stored) >= 20
    assert run(data).summary["samples"] == 200


def test_counts_of_nothing():
    counts = Counts.of([])
    assert (counts.clean_error, counts.lower, counts.upper) == (0.0, 0.0, 0.0)


def test_compare(fake, run, make_data, tmp_path, monkeypatch):
    from mipverify.report.compare import compare, write_comparison

    data = make_data(fates_of(fake, 24))
    run(data, out=tmp_path / "one", samples="0:20")
    real = fake.result

    def other(image, label, index, fate, *, only_cheap):
        result = real(image, label, index, fate, only_cheap=only_cheap)
        if index == 3:
            return replace(result, verdict="holds", adversarial=None)
        return replace(result, verdict="holds") if index == 6 and not only_cheap else result

    monkeypatch.setattr(fake, "result", other)
    run(data, out=tmp_path / "two")
    found = compare(tmp_path / "one", tmp_path / "two")
    assert (found.common, found.only_first, found.only_second) == (20, 0, 4)
    assert [d.index for d in found.differences] == [3, 6]
    assert [d.index for d in found.contradictions] == [3]
    write_comparison(tmp_path / "compare.html", found)
    assert "Contradiction on 1 sample" in (tmp_path / "compare.html").read_text()
    with pytest.raises(InputError, match="holds no run"):
        compare(tmp_path / "one", tmp_path / "nothing")
