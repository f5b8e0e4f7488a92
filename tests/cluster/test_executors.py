"""Every place where samples run gives the same results, and what goes wrong there costs only the samples concerned."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mipverify.cluster import ClusterError, Schedule
from mipverify.errors import InputError

PLACES = [pytest.param(0, id="here"), pytest.param(1, id="one process"), pytest.param(2, id="two processes")]


@pytest.mark.parametrize("workers", PLACES)
def test_all_samples_get_their_verdict_once(fake, make_job, run_all, workers):
    fates = [fake.HOLDS, fake.WRONG, fake.VIOLATED, fake.UNKNOWN, fake.OPEN_HOLDS, fake.OPEN_VIOLATED] * 40
    found = run_all(make_job(fates), workers=workers)
    expected = ["holds", "misclassified", "violated", "unknown", "holds", "violated"] * 40
    assert [found[i].verdict for i in range(len(fates))] == expected
    assert all(not result.open for result in found.values())
    assert found[2].adversarial.dtype.name == "float32"


@pytest.mark.parametrize("workers", PLACES)
def test_an_exception_costs_one_sample(fake, make_job, run_all, workers):
    fates = [fake.HOLDS] * 60
    fates[17] = fake.RAISES
    found = run_all(make_job(fates), workers=workers)
    assert {i for i in found if found[i].verdict != "holds"} == {17}
    assert found[17].verdict == "unknown"
    assert "cursed" in found[17].reason


def test_a_crash_costs_one_sample(fake, make_job, run_all):
    fates = [fake.HOLDS] * 60
    fates[5] = fates[41] = fake.CRASHES
    found = run_all(make_job(fates), workers=2)
    assert {i for i in found if found[i].verdict != "holds"} == {5, 41}
    assert "SIGSEGV" in found[5].reason


def test_a_sample_whose_worker_died_by_chance_runs_again(fake, make_job, run_all, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_NOTES", str(tmp_path))
    fates = [fake.HOLDS] * 40
    fates[3] = fates[30] = fake.CRASHES_ONCE
    found = run_all(make_job(fates), workers=2)
    assert [found[i].verdict for i in range(40)] == ["holds"] * 40
    assert len(list(tmp_path.iterdir())) == 2


def test_a_sample_whose_worker_died_keeps_its_limit(fake, make_job, run_all, tmp_path, monkeypatch):
    """Its second attempt has the rest of the time; without a rest there is none."""
    monkeypatch.setenv("FAKE_NOTES", str(tmp_path))
    monkeypatch.setenv("FAKE_DELAY", "0.5")
    for timeout, verdict in ((30.0, "holds"), (0.4, "unknown")):
        for note in tmp_path.iterdir():
            note.unlink()
        job = replace(make_job([fake.DIES_ALONE_ONCE]), timeout=timeout)
        found = run_all(job, workers=1)
        assert found[0].verdict == verdict
        if verdict == "unknown":
            assert "SIGKILL" in found[0].reason
        else:
            limits = sorted(float(note.name.split("=")[1]) for note in tmp_path.glob("limit=*"))
            assert limits[-1] == timeout
            assert timeout - 20 < limits[0] <= timeout - 0.5


def test_when_nothing_works_the_run_ends(fake, make_job, run_all):
    with pytest.raises(RuntimeError, match="cursed"):
        run_all(make_job([fake.RAISES] * 300), workers=1)


@pytest.mark.parametrize("workers", PLACES)
def test_bad_input_is_told_as_such(make_job, run_all, workers):
    job = make_job([0] * 4)
    wrong = replace(job, data=replace(job.data, stored=job.data.stored[:, :1]))
    with pytest.raises(InputError, match="shape"):
        run_all(wrong, workers=workers)


def test_workers_that_cannot_start_are_given_up(make_job, run_all, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ClusterError, match="exit code 1"):
        run_all(make_job([0] * 4), workers=1)


def test_open_samples_run_alone_and_the_hardest_last(make_job):
    class Recorder:
        workers, exact_blame = 1, True

        def __init__(self):
            self.tasks, self.events = [], []

        @property
        def free(self):
            return 1 - len(self.events)

        def submit(self, task):
            self.tasks.append(task)
            self.events.append(task)

        def wait(self, timeout):
            from mipverify.cluster.executor import Ended, Found
            from mipverify.engine.sample import SampleResult

            (task,) = self.events
            self.events = []
            results = [
                SampleResult(i, 0, 0, "unknown", "crown", 0.0, -((i * 7) % 10) / 10, reason="open")
                for i in task.indices
            ]
            if not task.only_cheap:
                results = [replace(result, verdict="holds") for result in results]
            return [*(Found(task.number, result) for result in results), Ended(task.number)]

    recorder = Recorder()
    assert sum(len(found) for found in Schedule(recorder, range(10), make_job([0] * 10)).run()) == 10
    alone = [task.indices[0] for task in recorder.tasks if not task.only_cheap]
    assert alone == sorted(range(10), key=lambda i: (i * 7) % 10)


def test_workers_end_with_a_killed_parent(tmp_path):
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from mipverify.cluster import SampleJob, open_executor
from mipverify.cluster.executor import Task
from mipverify.network import Input, Network
from mipverify.specification.dataset import Dataset
data = Dataset(np.zeros((8, 2)), np.zeros(8, int), "d", "d")
job = SampleJob(Network((Input((1, 2)),), 0), data, ("0",), 1.0,
          verifier="fake_verifier:verify_batch")
executor = open_executor(job, workers=2)
executor.submit(Task(1, (0, 1, 2), True))
executor.submit(Task(2, (3, 4, 5), True))
print(*(worker.process.pid for worker in executor._workers), flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=os.environ | {"FAKE_DELAY": "20"}
    ) as process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        time.sleep(random.uniform(0.0, 1.0))
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 5.0
    while any(alive(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
