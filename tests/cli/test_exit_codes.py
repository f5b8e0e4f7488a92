"""Exit codes: what the verdict, a failure or an interruption becomes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mipverify.engine
from mipverify.engine import Verdict
from tests.cli.files import Result, network, vnnlib


def answer_with(monkeypatch: pytest.MonkeyPatch, action: Callable[..., Verdict]) -> None:
    monkeypatch.setattr(mipverify.engine, "verify", action)


def test_holds(cli: Callable[..., Result], folder: Path) -> None:
    result = cli("verify", folder / "net.onnx", folder / "holds.vnnlib")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("holds")


def test_violated(cli: Callable[..., Result], folder: Path) -> None:
    result = cli("verify", folder / "net.onnx", folder / "violated.vnnlib")
    assert (result.code, result.err) == (10, "")
    assert result.out.startswith("violated")


def test_undecided_says_why(cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, lambda *_, **__: Verdict("unknown", 5.0, "crown", -0.25, reason="time"))
    result = cli("verify", folder / "net.onnx", folder / "holds.vnnlib")
    assert result.code == 3
    assert "time" in result.out
    assert "-0.25" in result.out


@pytest.mark.parametrize("eps", ["0.01", "0.6"])
def test_robustness_of_an_image(eps: str, cli: Callable[..., Result], folder: Path) -> None:
    result = cli("verify", folder / "net.onnx", "--data", folder / "images.npz", "--index", 0, "--eps", eps)
    assert result.code == (0 if eps == "0.01" else 10)
    if result.code == 10:
        assert "instead of 0" in result.out


def test_the_radius_arrives_as_typed(cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    import mipverify.specification as room

    original = room.robustness
    monkeypatch.setattr(room, "robustness", lambda *a, **k: seen.append(a[2]) or original(*a, **k))
    cli("verify", folder / "net.onnx", "--data", folder / "images.npz", "--index", 0, "--eps", "0.010")
    assert seen == ["0.010"]


def test_more_memory_than_there_are_addresses(cli: Callable[..., Result], folder: Path) -> None:
    asked = "verify", folder / "net.onnx", folder / "holds.vnnlib"
    assert cli(*asked, "--memory", "99999999T").code == cli(*asked).code == 0


def test_limits_reach_the_engine(cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def engine(network: Any, specification: Any, **limits: Any) -> Verdict:
        seen.update(limits)
        return Verdict("holds", 0.1, "crown")

    answer_with(monkeypatch, engine)
    cli(
        "verify", folder / "net.onnx", folder / "holds.vnnlib",
        "--timeout", "7.5", "--seed", 3, "--workers", 2, "--solver", "cbc", "--memory", "2G",
        "--arithmetic", "float32",
    )  # fmt: skip
    del seen["progress"]
    assert 2.5 < seen.pop("timeout") < 7.5  # what reading has left of it
    limits = {"seed": 3, "workers": 2, "solver": "cbc", "memory": 2 * 1024**3}
    assert seen == {**limits, "proof": False, "arithmetic": "float32"}


def test_internal_failure_is_one_line(
    cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def engine(*_: Any, **__: Any) -> Verdict:
        raise RuntimeError("two\nlines")

    answer_with(monkeypatch, engine)
    result = cli("verify", folder / "net.onnx", folder / "holds.vnnlib", "--json")
    assert (result.code, result.out) == (4, "")
    assert result.lines == ["mipverify: error: internal failure: RuntimeError: two lines"]
    verbose = cli("verify", folder / "net.onnx", folder / "holds.vnnlib", "--verbose")
    assert verbose.code == 4
    assert "Traceback" in verbose.err


def test_interruption_is_undecided(cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def engine(*_: Any, **__: Any) -> Verdict:
        raise KeyboardInterrupt

    answer_with(monkeypatch, engine)
    result = cli("verify", folder / "net.onnx", folder / "holds.vnnlib", "--result-file", folder / "result.txt")
    assert result.code == 3
    assert "interrupted" in result.out
    assert (folder / "result.txt").read_text() == "unknown\n"


def test_interruption_while_reading(cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("mipverify.network.load", load)
    result = cli("verify", folder / "net.onnx", folder / "holds.vnnlib")
    assert (result.code, result.lines) == (3, ["mipverify: error: interrupted"])


def test_quiet_prints_the_verdict_alone(cli: Callable[..., Result], folder: Path) -> None:
    assert cli("verify", folder / "net.onnx", folder / "holds.vnnlib", "--quiet").out == "holds\n"


def test_verbose_prints_statistics(cli: Callable[..., Result], folder: Path) -> None:
    out = cli("verify", folder / "net.onnx", folder / "holds.vnnlib", "--verbose").out
    assert "unstable_relus" in out
    story = out[out.index("stage ") :].splitlines()
    assert story[0].split() == ["stage", "seconds", "open", "bound", "unstable"]
    open_ = story[-1][: story[0].index("open") + len("open")].split()[-1]
    assert open_ == "0", "nothing is open after the last stage"


def test_help_and_version(cli: Callable[..., Result]) -> None:
    import mipverify

    assert cli("--version").out == f"mipverify {mipverify.__version__}\n"
    for arguments in ([], ["--help"], ["verify", "--help"], ["inspect", "-h"]):
        result = cli(*arguments)
        assert (result.code, result.err) == (0, "")
        assert "Examples:" in result.out


def test_the_help_and_the_docs_tell_the_codes(cli: Callable[..., Result]) -> None:
    told = dict(re.findall(r"^ +(\d+) +(\S+)", cli("--help").out.split("Exit codes:")[1], re.MULTILINE))
    assert {code: word.strip(",") for code, word in told.items()} == {
        "0": "holds", "2": "bad", "3": "undecided", "4": "internal", "10": "violated",
    }  # fmt: skip
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    assert re.findall(r"^\| `(\w+)` \| (\d+) \|", page, re.MULTILINE) == [
        ("holds", "0"), ("violated", "10"), ("unknown", "3"),
    ]  # fmt: skip


@pytest.mark.parametrize("code", [0, 1, None])
def test_a_library_that_ends_the_process_gives_no_verdict(
    code: int | None, cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def engine(*_: Any, **__: Any) -> Verdict:
        raise SystemExit(code)

    answer_with(monkeypatch, engine)
    result = cli("verify", folder / "net.onnx", folder / "holds.vnnlib")
    assert (result.code, result.out) == (4, "")
    assert result.lines == [f"mipverify: error: internal failure: SystemExit: {code}"]


def test_reading_counts_and_is_left_behind(
    cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mipverify import network

    monkeypatch.setattr(network, "load", lambda path: time.sleep(3.0))
    begin = time.perf_counter()
    result = cli("verify", folder / "net.onnx", folder / "holds.vnnlib", "--timeout", "0.2", "--json")
    assert time.perf_counter() - begin < 2.5
    assert result.code == 3
    answer = json.loads(result.out)
    assert (answer["verdict"], answer["reason"], answer["stage"]) == ("unknown", "time", "reading")
    assert answer["network"]["path"].endswith("net.onnx")


def test_a_process_does_not_wait_for_what_it_has_left_behind(folder: Path) -> None:
    code = (
        "import sys, time; from mipverify import network; network.load = lambda path: time.sleep(60)\n"
        "from mipverify.cli.main import main; sys.exit(main())"
    )
    begin = time.perf_counter()
    command = [sys.executable, "-c", code, "verify", folder / "net.onnx", folder / "holds.vnnlib", "--timeout", "0.2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert time.perf_counter() - begin < 8.0
    assert (done.returncode, done.stderr) == (3, "")
    assert "time" in done.stdout


def test_overflow_of_a_search_is_no_news(
    cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounds beyond float32 are rounded outward; numpy would warn of each place where a search meets infinity."""
    graph = network().graph
    nodes = [helper.make_node("Max", ["image", "far"], ["logits"])]
    far = numpy_helper.from_array(np.array(3.4028234663852886e38, np.float32), "far")
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])]
    model = helper.make_model(
        helper.make_graph(nodes, "far", graph.input, outputs, [far]), opset_imports=[helper.make_opsetid("", 13)]
    )
    model.ir_version = 8
    onnx.save(model, folder / "far.onnx")
    (folder / "far.vnnlib").write_text(vnnlib(outputs=4, claim="(>= Y_0 3.41e38)"))
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ran = cli("verify", folder / "far.onnx", folder / "far.vnnlib", "--timeout", 10, "--workers", 1)
    assert (ran.code, ran.err, told) == (0, "", [])
