"""Files that commands write: never one that they read, never through a link, and no verdict is lost with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.files import Result, network


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def inputs(folder: Path) -> Path:
    """Good files, also as IDX, with weights in another file, and under a second name."""
    (folder / "t-images-idx3-ubyte").write_bytes(
        b"\0\0\x08\x03" + np.array([1, 2, 2], ">u4").tobytes() + bytes([128] * 4)
    )
    (folder / "t-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + np.array([1], ">u4").tobytes() + bytes(1))
    onnx.save(network(), folder / "ext.onnx", save_as_external_data=True, location="ext.bin", size_threshold=0)
    (folder / "link.onnx").symlink_to("net.onnx")
    (folder / "hard.onnx").hardlink_to(folder / "net.onnx")
    return folder


PROPERTY = ["verify", "net.onnx", "violated.vnnlib"]
DATA = ["verify", "net.onnx", "--data", "t-images-idx3-ubyte", "--index", "0", "--eps", "0.6"]
DISTANCE = ["distortion", "net.onnx", "--data", "images.npz", "--index", "0", "--timeout", "2"]
DISTANCES = ["distortion", "net.onnx", "--samples", "0:1", "--timeout", "2"]
REPORT = ["report", "net.onnx", "--eps", "0.1", "--workers", "0"]


@pytest.mark.parametrize(
    "command",
    [
        [*PROPERTY, "--result-file", "net.onnx"],
        [*PROPERTY, "--witness", "net.onnx"],
        [*PROPERTY, "--result-file", "violated.vnnlib"],
        [*PROPERTY, "--witness", "./violated.vnnlib"],
        [*PROPERTY, "--witness", "hard.onnx"],
        ["verify", "link.onnx", "violated.vnnlib", "--witness", "net.onnx"],
        ["verify", "ext.onnx", "violated.vnnlib", "--result-file", "ext.bin"],
        [*DATA, "--result-file", "t-images-idx3-ubyte"],
        [*DATA, "--result-file", "t-labels-idx1-ubyte"],
        [*PROPERTY, "--witness", "same.txt", "--result-file", "same.txt"],
        [*DISTANCE, "--witness", "images.npz"],
        ["distortion", "ext.onnx", *DISTANCE[2:], "--witness", "ext.bin"],
        [*REPORT, "--data", "run/samples.csv", "--out", "run"],
        [*DISTANCES, "--data", "run/distances.csv", "--out", "run"],
        ["convert", "source.nnet", "source.nnet"],
    ],
    ids=" ".join,
)
def test_an_input_is_never_an_output(
    command: list[str], inputs: Path, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inputs)
    (inputs / "run").mkdir()
    for name in ("samples.csv", "distances.csv"):
        (inputs / "run" / name).write_text("0,0.5,0.5,0.5,0.5\n")
    (inputs / "source.nnet").write_text("// nothing\n")
    before = contents(inputs)
    result = cli(*command)
    assert (result.code, len(result.lines)) == (2, 1), result
    assert contents(inputs) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", ["verify", "distortion"])
def test_what_was_found_is_told_where_its_proof_cannot_be_written(
    command: str, cli: Callable[..., Result], folder: Path
) -> None:
    asked = [command, folder / "net.onnx", "--data", folder / "images.npz", "--index", 0, "--json", "--timeout", 20]
    asked += ["--eps", "0.001"] if command == "verify" else []
    whole = cli(*asked, "--proof", folder / "a.proof")
    without = cli(*asked, "--proof", "/dev/full")
    assert (folder / "a.proof").stat().st_size > 0
    assert "/dev/full: cannot be written (No space left on device)" in without.err
    assert "internal" not in without.err
    told, expected = json.loads(without.out), json.loads(whole.out)
    assert told["proof"] is None
    assert told.get("verdict") == expected.get("verdict")
    assert told.get("status") == expected.get("status")
    assert without.code == 4


def test_outputs_do_not_go_through_links(folder: Path, cli: Callable[..., Result]) -> None:
    precious, out = folder / "precious.txt", folder / "out.txt"
    for content in ("what is precious", None):
        precious.unlink(missing_ok=True)
        if content is not None:
            precious.write_text(content)
        out.unlink(missing_ok=True)
        out.symlink_to(precious)
        (folder / "out.txt.partial").unlink(missing_ok=True)
        (folder / "out.txt.partial").symlink_to(precious)
        result = cli("verify", folder / "net.onnx", folder / "holds.vnnlib", "--result-file", out)
        assert result.code == 0
        assert out.read_text() == "unsat\n"
        assert (precious.read_text() if precious.exists() else None) == content


@pytest.mark.parametrize("command", ["report", "distortion"])
@pytest.mark.parametrize("name", [".lock", "results.sqlite", "results.sqlite-wal", "results.sqlite-journal"])
def test_a_run_stays_in_its_folder(command: str, name: str, folder: Path, cli: Callable[..., Result]) -> None:
    precious, out = folder / "precious", folder / "run"
    precious.write_text("what is precious")
    out.mkdir()
    (out / name).symlink_to(precious)
    more = ["--eps", "0.1", "--workers", "0"] if command == "report" else ["--timeout", "2"]
    result = cli(command, folder / "net.onnx", "--data", folder / "images.npz", "--samples", "0:1", "--out", out, *more)
    assert (result.code, len(result.lines)) == (2, 1)
    assert precious.read_text() == "what is precious"


@pytest.mark.parametrize("name", ["samples.csv", "summary.json", "report.html", "samples.csv.partial"])
def test_tables_replace_links(name: str, folder: Path, cli: Callable[..., Result]) -> None:
    precious, out = folder / "precious", folder / "run"
    precious.write_text("what is precious")
    out.mkdir()
    (out / name).symlink_to(precious)
    asked = ["--data", folder / "images.npz", "--eps", "0.1", "--workers", "0", "--out", out]
    assert cli("report", folder / "net.onnx", *asked).code == 0
    assert precious.read_text() == "what is precious"
    assert not (out / name).is_symlink()


def test_a_run_in_a_folder_behind_a_link_is_a_run(folder: Path, cli: Callable[..., Result]) -> None:
    (folder / "disk").mkdir()
    (folder / "run").symlink_to("disk")
    asked = ["--data", folder / "images.npz", "--eps", "0.1", "--workers", "0", "--out", folder / "run"]
    assert cli("report", folder / "net.onnx", *asked).code == 0
    assert (folder / "disk" / "report.html").is_file()


@pytest.mark.parametrize("kind", ["a file", "a link to nothing", "below a file"])
def test_what_can_be_no_folder(kind: str, folder: Path, cli: Callable[..., Result]) -> None:
    out = folder / "run"
    if kind == "a link to nothing":
        out.symlink_to("nowhere")
    else:
        out.write_text("a file")
        out = out / "run" if kind == "below a file" else out
    for command, more in (("report", ["--eps", "0.1", "--workers", "0"]), ("distortion", ["--samples", "0:1"])):
        result = cli(command, folder / "net.onnx", "--data", folder / "images.npz", "--out", out, *more)
        assert (result.code, len(result.lines)) == (2, 1), result


def test_the_verdict_is_told_where_its_file_cannot_be_written(
    folder: Path, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = folder / "gone"
    gone.mkdir()
    import mipverify.engine

    decide = mipverify.engine.verify

    def engine(*arguments: object, **options: object) -> object:
        shutil.rmtree(gone)
        return decide(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(mipverify.engine, "verify", engine)
    result = cli("verify", folder / "net.onnx", folder / "holds.vnnlib", "--result-file", gone / "out.txt")
    assert result.code == 4
    assert result.out.startswith("holds")
    assert len(result.lines) == 1
    assert "out.txt: cannot be written" in result.err
