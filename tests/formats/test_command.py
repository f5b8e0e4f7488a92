"""`mipverify convert`: what it prints, and one line with exit code 2 for everything that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mipverify.cli.main import main
from tests.cli.files import Result
from tests.formats.sources import dense_arrays, nnet_text, random_nnet, save_mat


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run the command line with these arguments in this process."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Good files: dense.mat (4-3-2), images.mat (conv1, logits for 1x4x4 images), net.nnet (3-4-2)."""
    rng = np.random.default_rng(0)
    save_mat(tmp_path / "dense.mat", dense_arrays(rng, [4, 3, 2], ["fc1", "logits"]))
    images = {"conv1/weight": rng.normal(size=(2, 2, 1, 2)), "conv1/bias": rng.normal(size=2)}
    save_mat(tmp_path / "images.mat", images | dense_arrays(rng, [8, 2], ["logits"]))
    (tmp_path / "net.nnet").write_text(nnet_text(*random_nnet(rng, [3, 4, 2])))
    monkeypatch.chdir(tmp_path)
    return tmp_path


IMAGES = ("images.mat", "out.onnx", "--input-shape", "1,4,4")


def test_what_it_prints(cli: Callable[..., Result], folder: Path) -> None:
    result = cli("convert", *IMAGES, "--layers", "conv1:stride=2,relu flatten=chw logits")
    assert (result.code, result.err) == (0, "")
    first = result.out.splitlines()[0]
    for word in ("out.onnx", "images.mat", "1×4×4 -> 2", "28 parameters"):
        assert word in first
    assert "differ from the source by at most" in result.out
    assert "conv1" in result.out


def test_json(cli: Callable[..., Result], folder: Path) -> None:
    result = cli("convert", "net.nnet", "out.onnx", "--normalize", "both", "--json")
    done = json.loads(result.out)
    assert (result.code, done["format"], done["input_shape"], done["output_shape"]) == (0, "nnet", [3], [2])
    assert done["parameters"] == 3 * 4 + 4 + 4 * 2 + 2
    assert done["difference"] <= 1e-4 * done["largest_output"]
    assert [layer["kind"] for layer in done["layers"]] == ["Input", "Dense", "Relu", "Dense"]


def test_what_was_written_can_be_verified(cli: Callable[..., Result], folder: Path) -> None:
    assert cli("convert", "dense.mat", "out.onnx").code == 0
    np.savez("data.npz", images=np.full((1, 4), 0.5, np.float32), labels=[0])
    result = cli("verify", "out.onnx", "--data", "data.npz", "--index", "0", "--eps", "0.01")
    assert result.code in (0, 1)


def test_an_earlier_file_is_kept_where_the_source_is_bad(cli: Callable[..., Result], folder: Path) -> None:
    Path("out.onnx").write_text("precious")
    assert cli("convert", "dense.mat", "out.onnx", "--layers", "fc1").code == 0
    Path("out.onnx").write_text("precious")
    assert cli("convert", "dense.mat", "out.onnx", "--layers", "none").code == 2
    assert Path("out.onnx").read_text() == "precious"


def layers(text: str) -> tuple[str, ...]:
    return (*IMAGES, "--layers", text)


BAD: dict[str, tuple[tuple[str, ...], list[str]]] = {
    # name: (arguments, what the line must contain)
    "file missing": (("none.mat", "out.onnx"), ["none.mat"]),
    "file is a directory": ((".mat", "out.onnx"), [".mat"]),
    "format unknown": (("net.txt", "out.onnx"), ["net.txt", ".nnet"]),
    "file is onnx": (("net.onnx", "out.onnx"), ["net.onnx", "already"]),
    "keras file": (("net.h5", "out.onnx"), ["net.h5", "tf2onnx", "--keras"]),
    "new keras file": (("net.keras", "out.onnx"), ["net.keras", "ONNX"]),
    "tensorflow graph": (("net.pb", "out.onnx"), ["net.pb", "tf2onnx", "--graphdef"]),
    "target of another kind": (("dense.mat", "out.txt"), ["out.txt", ".onnx"]),
    "target in no directory": (("dense.mat", "none/out.onnx"), ["none"]),
    "mat damaged": (("damaged.mat", "out.onnx"), ["damaged.mat"]),
    "mat truncated": (("truncated.mat", "out.onnx"), ["truncated.mat"]),
    "mat empty": (("empty.mat", "out.onnx"), ["empty.mat"]),
    "mat of version 7.3": (("hdf.mat", "out.onnx"), ["hdf.mat", "7.3", "savemat"]),
    "mat with NaN": (("nan.mat", "out.onnx"), ["nan.mat", "fc1/weight", "NaN"]),
    "mat without a bias": (("unbiased.mat", "out.onnx"), ["unbiased.mat", "fc1/bias", "bias=none"]),
    "mat with a bias of another size": (("bias.mat", "out.onnx"), ["bias.mat", "fc1", "2", "3"]),
    "mat whose layers do not fit": (("misfit.mat", "out.onnx"), ["misfit.mat", "4x3", "5x2", "--layers"]),
    "mat without layers": (("other.mat", "out.onnx"), ["other.mat", "LAYER/weight"]),
    "convolution without a list": (("images.mat", "out.onnx"), ["images.mat", "conv1", "--layers"]),
    "convolution without a shape": (("images.mat", "out.onnx", "--layers", "conv1 flatten logits"), ["--input-shape"]),
    "layer unknown": (layers("conv1:stride=2 flatten fc9"), ["fc9", "conv1, logits"]),
    "option unknown": (layers("conv1:speed=2 flatten logits"), ["conv1", "speed"]),
    "stride no number": (layers("conv1:stride=fast flatten logits"), ["conv1", "stride", "fast"]),
    "padding unknown": (layers("conv1:pad=some flatten logits"), ["conv1", "pad", "some"]),
    "option twice": (layers("conv1:stride=1,stride=2 flatten logits"), ["conv1:stride=1,stride=2"]),
    "flatten order unknown": (layers("conv1 flatten=wch logits"), ["flatten=wch", "hwc"]),
    "pool without a size": (layers("conv1 maxpool flatten logits"), ["maxpool", "maxpool=2"]),
    "list empty": (layers(" "), ["--layers"]),
    "image into a dense layer": (layers("conv1:stride=2 logits"), ["logits", "flatten"]),
    "sizes that do not fit": (layers("conv1 flatten logits"), ["logits", "8x2", "32"]),
    "window larger than the image": (layers("conv1 maxpool=9:pad=valid flatten logits"), ["maxpool", "9x9"]),
    "value not remembered": (layers("conv1 add=start flatten logits"), ["start", "as=start"]),
    "sum of other shapes": (layers("as=start conv1:stride=2 add=start flatten logits"), ["add=start"]),
    "mask missing": (layers("conv1 relu:mask=mask flatten logits"), ["mask"]),
    "normalization without std": (layers("normalize:mean=0 conv1 flatten logits"), ["normalize", "std"]),
    "normalization by zero": (layers("normalize:mean=0,std=0 conv1 flatten logits"), ["normalize", "zero"]),
    "shape unreadable": (("dense.mat", "out.onnx", "--input-shape", "1x2"), ["--input-shape", "1x2"]),
    "shape with two sizes": (("dense.mat", "out.onnx", "--input-shape", "2,2"), ["--input-shape"]),
    "shape that does not fit": (("dense.mat", "out.onnx", "--input-shape", "5"), ["fc1", "5"]),
    "normalization unknown": (("net.nnet", "out.onnx", "--normalize", "all"), ["--normalize", "all"]),
    "option of another format": (("net.nnet", "out.onnx", "--layers", "fc1"), ["--layers", ".nnet"]),
    "state dict without architecture": (("net.pth", "out.onnx"), ["net.pth", "--architecture", "--input-shape"]),
    "nnet that is no text": (("binary.nnet", "out.onnx"), ["binary.nnet"]),
    "nnet empty": (("empty.nnet", "out.onnx"), ["empty.nnet"]),
}


@pytest.fixture
def bad_folder(folder: Path) -> Path:
    good = Path("dense.mat").read_bytes()
    for name, content in {
        "damaged.mat": b"MATLAB? no. " * 20,
        "truncated.mat": good[: len(good) // 2],
        "empty.mat": b"",
        "hdf.mat": b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(64),
        "net.txt": b"no",
        "net.pth": b"no",
        "binary.nnet": b"\xff\xfe\x00",
        "empty.nnet": b"",
    }.items():
        Path(name).write_bytes(content)
    rng = np.random.default_rng(0)
    arrays = dense_arrays(rng, [4, 3, 2], ["fc1", "logits"])
    save_mat(folder / "nan.mat", arrays | {"fc1/weight": np.full((4, 3), np.nan)})
    save_mat(folder / "unbiased.mat", {key: array for key, array in arrays.items() if key != "fc1/bias"})
    save_mat(folder / "bias.mat", arrays | {"fc1/bias": np.zeros(2)})
    save_mat(folder / "misfit.mat", arrays | {"logits/weight": np.ones((5, 2))})
    save_mat(folder / "other.mat", {"image": np.zeros((4, 4))})
    return folder


@pytest.mark.parametrize("name", BAD)
def test_one_line_says_what_and_where(name: str, cli: Callable[..., Result], bad_folder: Path) -> None:
    arguments, expected = BAD[name]
    before = sorted(bad_folder.iterdir())
    result = cli("convert", *arguments)
    assert result.code == 2, result
    assert result.out == ""
    assert len(result.lines) == 1, result.err
    assert result.err.startswith("mipverify: error: ")
    for word in expected:
        assert word in result.err
    assert sorted(bad_folder.iterdir()) == before


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_other_commands_say_how_to_convert(command: str, cli: Callable[..., Result], folder: Path) -> None:
    np.savez("data.npz", images=np.zeros((1, 3), np.float32), labels=[0])
    result = cli(command, "net.nnet", "--data", "data.npz", "--index", "0", "--eps", "0.1")
    assert (result.code, len(result.lines)) == (2, 1)
    assert "mipverify convert net.nnet" in result.err
