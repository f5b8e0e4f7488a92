"""Installed and run from any folder: neither the command nor its worker processes import what lies there."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.installed import ROOT, build_wheel, install

ZOO = ROOT / "models" / "zoo"
NET, DATA = ZOO / "mnist_small_linf0.1.onnx", ZOO / "mnist_100.npz"

# Modules that the program or its libraries load, and two that Python looks for by itself.
SHADOWS = (
    "argparse", "ctypes", "decimal", "json", "multiprocessing", "numpy", "onnx", "onnxruntime", "pickle", "queue",
    "random", "scipy", "select", "signal", "sitecustomize", "socket", "sqlite3", "subprocess", "tempfile", "threading",
    "torch", "typer", "usercustomize",
)  # fmt: skip


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(build_wheel(tmp_path_factory.mktemp("source")), tmp_path_factory.mktemp("environment"))


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with modules of well-known names, each of which leaves a mark and ends the process that imports it."""
    folder = tmp_path / "hostile"
    for name in SHADOWS:
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r} + ' ')\n1 / 0\n")
    (folder / "mipverify").mkdir()
    for name in ("__init__", "parallel", "cluster", "network"):
        (folder / "mipverify" / f"{name}.py").write_text((folder / "numpy.py").read_text())
    return folder


def run(command: list[object], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=400, check=False
    )


def places(hostile: Path) -> list[Path]:
    return [ROOT, hostile]


def test_the_installed_package_is_the_one_that_runs(bin_folder: Path) -> None:
    code = "import mipverify, importlib.metadata as m; print(mipverify.__file__, m.version('mipverify'))"
    file, version = run([bin_folder / "python", "-P", "-c", code], ROOT).stdout.split()
    assert Path(file).is_relative_to(bin_folder.parent)
    import mipverify

    assert version == mipverify.__version__


@pytest.mark.parametrize("command", [["mipverify"], ["python", "-m", "mipverify"]], ids=" ".join)
def test_verify_and_report_with_workers(command: list[str], bin_folder: Path, hostile: Path, tmp_path: Path) -> None:
    for place in places(hostile)[: 1 if "-m" in command else 2]:  # `-m` itself looks in the working directory first
        asked = ["--data", DATA, "--eps", "0.13", "--workers", 2]
        start = [bin_folder / command[0], *command[1:]]
        hard = run([*start, "verify", NET, *asked, "--index", 6, "--json", "--verbose"], place)
        assert hard.returncode == 0, hard.stderr
        assert json.loads(hard.stdout)["verdict"] == "holds"
        assert hard.stderr == ""
        out = tmp_path / place.name
        done = run([*start, "report", NET, *asked, "--samples", "5:8", "--timeout", 120, "--out", out, "-q"], place)
        assert (done.returncode, done.stderr) == (0, "")
        rows = list(csv.DictReader((out / "samples.csv").open()))
        assert [row["verdict"] for row in rows] == ["holds", "holds", "violated"]
    assert not (tmp_path / "imported").exists(), (tmp_path / "imported").read_text()


@pytest.mark.slow
def test_report_on_a_local_cluster(bin_folder: Path, hostile: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    asked = ["--data", DATA, "--eps", "0.1", "--samples", "0:3", "--cluster", "local", "--workers", 2, "--out"]
    done = run([bin_folder / "mipverify", "report", NET, *asked, tmp_path / "out", "--json"], hostile)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 3
    assert not (tmp_path / "imported").exists(), (tmp_path / "imported").read_text()


@pytest.mark.slow
def test_distortion_with_workers(bin_folder: Path, hostile: Path, tmp_path: Path) -> None:
    asked = ["--data", DATA, "--samples", "0:2", "--workers", 2, "--timeout", 2, "--out", tmp_path / "out", "--json"]
    done = run([bin_folder / "mipverify", "distortion", NET, *asked], hostile)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["samples"] == 2
    assert not (tmp_path / "imported").exists(), (tmp_path / "imported").read_text()


def test_pool_workers_join(bin_folder: Path, hostile: Path, tmp_path: Path) -> None:
    """What `verify` would hide: it does the work of workers that cannot start."""
    code = (
        "import time; from mipverify.parallel import ProcessPool\n"
        "with ProcessPool(2) as pool:\n"
        "    until = time.monotonic() + 30\n"
        "    while pool.count < 2 and time.monotonic() < until:\n"
        "        pool.map(getattr, 1, ['real'], lambda: False)\n"
        "        time.sleep(0.05)\n"
        "    print(pool.count)\n"
    )
    for place in places(hostile):
        done = run([bin_folder / "python", "-P", "-c", code], place)
        assert (done.stdout, done.stderr) == ("2\n", "")
    assert not (tmp_path / "imported").exists(), (tmp_path / "imported").read_text()
