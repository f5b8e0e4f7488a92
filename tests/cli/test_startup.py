"""What the command line costs before it works, and how it behaves as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

IMAGE = ("--data", "images.npz", "--domain", "0,1", "--mean", "0")
COMMAND = [sys.executable, "-m", "mipverify"]


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload]


def test_version_is_quick() -> None:
    def seconds() -> float:
        started = time.perf_counter()
        assert run("--version").returncode == 0
        return time.perf_counter() - started

    assert min(seconds() for _ in range(5)) < 0.3


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["verify", "--help"], ["verify"]])
def test_no_work_imports_no_library(arguments: list[str]) -> None:
    script = (
        "import sys; from mipverify.cli.main import main; main(sys.argv[1:]);"
        "print(*{'numpy', 'onnx', 'scipy', 'torch', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.splitlines()[-1] == ""


# What takes long to import and no question needs that bounds decide: parsers and pages, solvers, numerical libraries
# beside numpy, other processes.
UNNEEDED = (
    "concurrent.futures", "highspy", "html", "jinja2", "multiprocessing", "numpy.f2py", "numpy.ma", "pydantic", "rich",
    "scipy.linalg", "scipy.optimize", "scipy.sparse", "sqlite3", "torch", "typer", "vnnlib",
)  # fmt: skip


@pytest.mark.parametrize("property_file", ["holds.vnnlib", "violated.vnnlib"])
def test_a_question_that_is_decided_at_once_imports_little(property_file: str, folder: Path) -> None:
    script = (
        "import sys; from mipverify.cli.main import main; main(sys.argv[1:]); "
        f"print(*sorted({set(UNNEEDED)} & set(sys.modules)), file=sys.stderr)"
    )
    arguments = [sys.executable, "-c", script, "verify", str(folder / "net.onnx"), str(folder / property_file)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout.split()[0], done.stderr) == (property_file.partition(".")[0], "\n")


def test_a_report_and_its_worker_import_no_parser_and_no_frames(folder: Path) -> None:
    arguments = ["report", "net.onnx", *IMAGE, "--eps", "0.01", "--out", "run", "--workers", "1"]
    done = run(*arguments, cwd=folder, env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert imported >= {"mipverify.report.run", "mipverify.cluster.worker", "mipverify.engine.batch_proofs"}
    assert not imported & {"highspy", "pandas", "pydantic", "scipy.optimize", "scipy.sparse", "torch", "typer"}


@pytest.mark.parametrize(
    "arguments",
    [("verify", "net.onnx", "holds.vnnlib"), ("verify", "net.onnx", "none.vnnlib"), ("inspect", "net.onnx")],
)
def test_cycles_are_looked_for_once_the_work_begins(arguments: tuple[str, ...], folder: Path) -> None:
    script = "import gc, sys; from mipverify.cli.main import main; main(); print(gc.isenabled(), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.splitlines()[-1] == "True"


def test_verification_imports_no_torch(folder: Path) -> None:
    script = (
        "import sys; from mipverify.cli.main import main; code = main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    )
    arguments = ["verify", folder / "net.onnx", folder / "violated.vnnlib"]
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_exit_code_and_streams_of_the_process(folder: Path) -> None:
    done = run("verify", "net.onnx", "violated.vnnlib", "--json", cwd=folder)
    assert (done.returncode, done.stderr) == (10, "")
    assert json.loads(done.stdout)["verdict"] == "violated"


def test_bad_input_prints_one_line(folder: Path) -> None:
    done = run("verify", "net.onnx", "none.vnnlib", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_went_away_changes_no_verdict(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        done = subprocess.run(
            [*COMMAND, "verify", "net.onnx", "holds.vnnlib"],
            cwd=folder, stdout=stdout, stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


def test_completion_for_the_shell() -> None:
    done = run(
        env={**os.environ, "_MIPVERIFY_COMPLETE": "complete_bash", "COMP_WORDS": "mipverify ver", "COMP_CWORD": "1"}
    )
    assert done.stdout.split() == ["verify"]


THREADS = """
import ctypes, re, sys
from pathlib import Path
from mipverify.cli.main import main

assert main(sys.argv[1:]) in (0, 10), "the command works"
libraries = set(re.findall(r"/\\S*openblas\\S*", Path("/proc/self/maps").read_text()))
names = [f"{front}openblas_get_num_threads{end}" for front in ("scipy_", "") for end in ("64_", "")]
loaded = [ctypes.CDLL(library) for library in libraries]
print(*(next(getattr(lib, name)() for name in names if hasattr(lib, name)) for lib in loaded), file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the libraries that Linux says are loaded")
@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "net.onnx", "holds.vnnlib"),
        ("verify", "net.onnx", *IMAGE, "--index", "0", "--eps", "0.01"),
        ("inspect", "net.onnx", *IMAGE, "--index", "0", "--eps", "0.01"),
        ("report", "net.onnx", *IMAGE, "--eps", "0.01", "--out", "run", "--workers", "0"),
        ("distortion", "net.onnx", *IMAGE, "--index", "0", "--max-distance", "0.01"),
    ],
    ids=" ".join,
)
def test_commands_that_verify_use_one_thread(arguments: tuple[str, ...], folder: Path) -> None:
    given = {
        name: value for name, value in os.environ.items() if not name.endswith(("_NUM_THREADS", "_MAXIMUM_THREADS"))
    }
    done = subprocess.run(
        [sys.executable, "-c", THREADS, *arguments],
        cwd=folder, env=given, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = done.stderr.splitlines()[-1].split()
    assert counts, "numpy's BLAS is another one here"
    assert set(counts) == {"1"}
