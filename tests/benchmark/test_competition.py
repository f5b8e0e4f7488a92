"""The three scripts of vnncomp/, run as the competition does, and its check of what they write."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mipverify.benchmark.check import CORRECT, check_witness
from tests.benchmark.conftest import write_network, write_property
from tests.specification.test_query import HEAD, SAME_INPUT, TWO, box, layer

SCRIPTS = Path(__file__).parents[2] / "vnncomp"


@pytest.fixture
def compete(tmp_path: Path):
    """Runs a script with an environment in which the program is installed already."""
    program = tmp_path / "venv" / "bin" / "mipverify"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom mipverify.cli.main import main\nsys.exit(main())\n")
    program.chmod(0o755)
    environment = os.environ | {"MIPVERIFY_VENV": str(tmp_path / "venv"), "TMPDIR": str(tmp_path)}

    def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(SCRIPTS / script), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)

    return run


def instance(compete, version, onnx, vnnlib, timeout="30") -> str:
    """What an instance of the competition writes."""
    results = vnnlib.parent / "results.txt"
    for script, more in (("prepare_instance.sh", ()), ("run_instance.sh", (results, timeout))):
        done = compete(script, version, "some_category", onnx, vnnlib, *more)
        assert done.returncode == 0, done.stderr
    return results.read_text()


def test_installed_once(compete):
    done = compete("install_tool.sh", "v1")
    assert done.returncode == 0
    assert done.stdout.startswith("mipverify ")
    for script in ("install_tool.sh", "prepare_instance.sh", "run_instance.sh"):
        assert compete(script, "v3").returncode != 0


def test_version_1(compete, tmp_path):
    network = write_network(tmp_path / "net.onnx")
    sat, unsat = write_property(tmp_path / "sat.vnnlib", 0.5), write_property(tmp_path / "unsat.vnnlib", 2)
    word, witness = instance(compete, "v1", network, sat).split("\n", 1)
    assert word == "sat"
    assert "(X_1 0.1)" in witness
    assert check_witness([("", network)], sat, witness) == CORRECT
    assert instance(compete, "v1", network, unsat) == "unsat\n"


def test_version_2_with_several_networks(compete, tmp_path):
    files = [("f", layer(tmp_path / "f.onnx", 1)), ("g", layer(tmp_path / "g.onnx", 2))]
    networks = repr([(name, str(path)) for name, path in files])
    query = tmp_path / "query.vnnlib"
    query.write_text(
        HEAD
        + TWO.format("")
        + box("X", (1, 2), -1, 1)
        + box("U", (1, 2), -1, 1)
        + SAME_INPUT
        + "(assert (>= X[0,0] 0.1))\n(assert (<= X[0,0] 0.1))\n(assert (!= Y[0,0] V[0,0]))\n"
    )
    word, witness = instance(compete, "v2", networks, query).split("\n", 1)
    assert word == "sat"
    assert witness.splitlines()[:2] == ["X float32 [1,2]", "0.1"], "the stated decimal, which is no float32"
    assert check_witness(files, query, witness) == CORRECT
    for wrong, said in (
        (witness.replace("\n0.1\n", "\n0.10000000149011612\n", 1), "does not meet"),
        (witness.replace("X float32", "Z float32", 1), "no X where it belongs"),
        (witness.replace("[1,2]", "[2,1]", 1), "of shape"),
        (witness + "1.0\n", "behind its end"),
        ("\n".join(witness.splitlines()[:-1]), "ends within V"),
    ):
        assert said in check_witness(files, query, wrong)


def test_what_is_not_supported_and_limits(compete, tmp_path):
    network = write_network(tmp_path / "net.onnx")
    wrong = tmp_path / "wrong.vnnlib"
    wrong.write_text("(assert (>= Y_0 (sin X_0)))\n")
    assert instance(compete, "v1", network, wrong) == "unknown\n"
    began = time.monotonic()
    sat = write_property(tmp_path / "sat.vnnlib", 2)
    assert instance(compete, "v1", network, sat, "0.02") == "timeout\n"
    assert time.monotonic() - began < 30
    assert compete("run_instance.sh", "v1", "c", network, sat, tmp_path / "r", "soon").returncode == 1


def test_what_an_earlier_instance_left_running_ends(compete, tmp_path):
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)  # mipverify"])
    (tmp_path / f"mipverify-vnncomp-{os.getuid()}.pid").write_text(str(left.pid))
    network, sat = write_network(tmp_path / "net.onnx"), write_property(tmp_path / "sat.vnnlib", 0.5)
    assert compete("prepare_instance.sh", "v1", "c", network, sat).returncode == 0
    assert left.wait(timeout=10) != 0
