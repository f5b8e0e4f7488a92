"""Scripts and benchmarks start: nothing that they import or call has gone, though no other code uses them."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.resources import files
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

import mipverify

ROOT = Path(__file__).parents[2]


def programs() -> list[Path]:
    """Files of both folders that are Python and take options, whatever they are called."""
    found = [path for folder in ("scripts", "benchmarks") for path in sorted((ROOT / folder).iterdir())]
    texts = {path: path.read_text() for path in found if path.is_file()}
    return [path for path, text in texts.items() if "import argparse" in text]


# One interpreter for all of them, since importing torch takes longer than most else.
ASK_ALL = """
import os, runpy, sys
try:
    import torch
except ImportError:
    pass
folder, *paths = sys.argv[1:]
for path in paths:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    said, status = open(os.path.join(folder, os.path.basename(path)), "w"), 1
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    sys.argv, sys.path[0] = [path, "--help"], os.path.dirname(path)
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as error:
        status = error.code
    finally:
        print("status", status, flush=True)
        os._exit(0)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each program says to --help, and its exit status."""
    folder = tmp_path_factory.mktemp("answers")
    command = [sys.executable, "-c", ASK_ALL, str(folder), *map(str, programs())]
    subprocess.run(command, timeout=120, check=True)
    return folder


@pytest.mark.parametrize("path", programs(), ids=lambda path: path.name)
def test_program_starts(path: Path, answers: Path) -> None:
    text = path.read_text()
    if "import torch" in text or "mipverify.models.training" in text:
        pytest.importorskip("torch")
    said = (answers / path.name).read_text()
    assert said.rstrip().endswith("status 0"), said
    assert "usage: " in said
    assert os.access(path, os.X_OK) or not text.startswith("#!"), "its first line says that it can be run"


def test_programs_without_an_ending_are_found() -> None:
    assert {"reproduce_stability", "hard_networks.py", "mutate_kernel.py"} <= {path.name for path in programs()}


def test_the_milp_alone_decides() -> None:
    """As `scripts/reproduce_stability` asks it: bounds, linear programs, then one program a class."""
    pytest.importorskip("torch")
    loader = SourceFileLoader("reproduce_stability", str(ROOT / "scripts" / "reproduce_stability"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    script = module_from_spec(spec)
    loader.exec_module(script)
    zoo = files("mipverify.models.zoo")
    network = mipverify.load(str(zoo / "mnist_small_linf0.1.onnx"))
    data = mipverify.load_dataset(str(zoo / "mnist_100.npz")).fit_to(network.input_shape)
    verdict, binaries, _ = script.decide(network, data.image(0), data.label(0), 0.05, 60.0)
    assert verdict == "holds"
    assert binaries > 0, "bounds decide it without a program"


def test_the_table_of_distances(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    images = str(files("mipverify.models.zoo") / "mnist_100.npz")
    command = [sys.executable, str(ROOT / "scripts" / "distance_table.py"), "--data", images, "--test", images]
    command += ["--out", str(tmp_path), "--samples", "0:1", "--norms", "linf", "--epochs", "1", "--gap", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader((tmp_path / "distances.csv").open())
    assert 0 < float(row["linf_lower"]) <= float(row["linf_upper"])
    assert row["linf_verify"] == "ok"
