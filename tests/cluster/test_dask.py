"""A Dask cluster whose workers and scheduler die costs time, never results."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mipverify.cluster import ClusterError, Schedule, open_executor
from mipverify.errors import InputError


@pytest.fixture
def dask():
    return pytest.importorskip("distributed", reason="the extra `cluster` is not installed")


def test_dask_worker_killed_mid_run(dask, fake, make_job, monkeypatch):
    monkeypatch.setenv("FAKE_DELAY", "0.01")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    job = make_job([fake.HOLDS, fake.OPEN_VIOLATED, fake.HOLDS, fake.WRONG] * 50)
    executor = open_executor(job, workers=2, cluster="local")
    found: dict[int, str] = {}
    try:
        killed = False
        for results in Schedule(executor, range(200), job).run():
            found |= {result.index: result.verdict for result in results}
            if found and not killed:
                victim = executor._cluster.workers[0].process.pid
                os.kill(victim, signal.SIGKILL)
                killed = True
    finally:
        executor.close()
    assert killed
    assert [found[i] for i in range(200)] == ["holds", "violated", "holds", "misclassified"] * 50


@pytest.mark.slow
def test_dask_scheduler_that_does_not_come_back(dask, fake, make_job, monkeypatch):
    from mipverify.cluster import dask as place

    monkeypatch.setattr(place, "RECONNECT", 2.0)
    monkeypatch.setenv("FAKE_DELAY", "0.05")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    port = free_port()
    scheduler = start(["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"])
    worker = start(["worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-dashboard", "--death-timeout", "5"])
    executor = None
    try:
        job = make_job([fake.HOLDS] * 400)
        executor = open_executor(job, workers=1, cluster=f"tcp://127.0.0.1:{port}")
        found: list[int] = []

        def run() -> None:
            for results in Schedule(executor, range(400), job).run():
                found.extend(result.index for result in results)
                if found:
                    scheduler.kill()

        with pytest.raises(ClusterError, match="did not come back") as failure:
            run()
        assert 0 < len(found) < 400
        assert "\n" not in str(failure.value)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
        if executor is not None:
            executor.close()


def test_dask_address_without_scheduler(dask, make_job, run_all, monkeypatch):
    from mipverify.cluster import dask as place

    monkeypatch.setattr(place, "CONNECT", 0.5)
    with pytest.raises(InputError, match="no Dask scheduler"):
        run_all(make_job([0]), workers=1, cluster=f"tcp://127.0.0.1:{free_port()}")


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
