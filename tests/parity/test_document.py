"""Every command and call in docs/from-mipverify-jl.md does what it says: each is run as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import mipverify.solvers.branch_and_bound
import numpy as np
import pytest

import mipverify
from mipverify.cli.main import main
from tests.formats.sources import dense_arrays, nnet_text, random_nnet, save_mat
from tests.parity.pieces import property_text

DOCUMENT = Path(__file__).parents[2] / "docs" / "from-mipverify-jl.md"


def rows() -> Iterator[tuple[str, str, str]]:
    """(MIPVerify.jl, mipverify, remarks) of every table row."""
    for line in DOCUMENT.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 3 and cells[0] != "MIPVerify.jl":
            yield cells[0], cells[1], cells[2]
        else:
            assert not line.startswith("| ") or cells[0] == "MIPVerify.jl", line


def examples() -> list[tuple[str, str]]:
    """(feature, command or call) wherever the row does not say that it is not there."""
    found = []
    for feature, ours, remarks in rows():
        spans = re.findall(r"`([^`]+)`", ours)
        spans += [
            span
            for span in re.findall(r"`([^`]+)`", remarks)
            if re.match(r"mipverify\.(verify|minimum_distortion)\(", span)
        ]
        assert spans or "not there" in remarks or "not needed" in remarks, feature
        found += [(feature, span) for span in spans]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the document speaks of."""
    place, rng = tmp_path_factory.mktemp("document"), np.random.default_rng(0)
    zoo = files("mipverify.models.zoo")
    shutil.copy(str(zoo / "mnist_small_linf0.1.onnx"), place / "net.onnx")
    shutil.copy(str(zoo / "mnist_100.npz"), place / "images.npz")
    image = np.load(place / "images.npz")["images"][3].reshape(-1) / 255
    text = property_text(image - 0.005, image + 0.005, 0, 2, -0.5)
    for i in range(3, 10):
        text = f"(declare-const Y_{i} Real)\n" + text
    (place / "margin.vnnlib").write_text(text)
    save_mat(place / "n1.mat", dense_arrays(rng, [784, 40, 20, 10], ["fc1", "fc2", "logits"]))
    save_mat(place / "two-layer.mat", dense_arrays(rng, [784, 500, 10], ["fc1", "logits"]))
    arrays = {"conv1/weight": rng.normal(size=(4, 4, 1, 16)), "conv1/bias": rng.normal(size=(1, 16))}
    arrays |= {"conv2/weight": rng.normal(size=(4, 4, 16, 32)), "conv2/bias": rng.normal(size=(1, 32))}
    save_mat(place / "wk17a.mat", arrays | dense_arrays(rng, [1568, 100, 10], ["fc1", "logits"]))
    plain = {"conv1/weight": rng.normal(size=(2, 2, 1, 2)), "fc1/matrix": rng.normal(size=(18, 3))}
    save_mat(place / "cnn.mat", plain | {"fc1/offset": rng.normal(size=3)})
    images = {"conv1/weight": rng.normal(size=(3, 3, 1, 2)), "conv1/bias": rng.normal(size=2)}
    images |= {"side/weight": rng.normal(size=(1, 1, 2, 2)), "side/bias": rng.normal(size=2)}
    images |= {"mask": rng.integers(-1, 2, size=(6, 6, 2))}
    for name, size in (("head", 72), ("small", 18)):
        images |= dense_arrays(rng, [size, 3], [name])
    save_mat(place / "images.mat", images)
    (place / "acas.nnet").write_text(nnet_text(*random_nnet(rng, [5, 6, 5])))
    return place


@pytest.fixture(scope="module")
def network(folder: Path) -> mipverify.Network:
    return mipverify.load(folder / "net.onnx")


@pytest.mark.parametrize(("feature", "text"), examples(), ids=lambda value: value[:70])
def test_example(
    feature: str,
    text: str,
    folder: Path,
    network: mipverify.Network,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    if not text.startswith("mipverify "):
        data = mipverify.load_dataset("images.npz").fit_to(network.input_shape)
        image = data.image(3).astype(np.float64)
        box = {"lower": image[None] - 0.01, "upper": image[None] + 0.01}
        known = {"mipverify": mipverify, "network": network, "data": data, "image": image, "label": data.label(3)}
        value = eval(text, known | box)
        assert value is not None
        return
    if "model.pth" in text:
        torch = pytest.importorskip("torch")
        layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))
        torch.save(layer.state_dict(), "model.pth")
        source = "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))\n"
        Path("model.py").write_text(source)
    if "--cluster" in text:
        pytest.importorskip("distributed")
    code = main(shlex.split(text)[1:])
    shown = capfd.readouterr()
    if text.startswith("mipverify distortion"):  # in so short a time the bounds need not meet
        assert code in (0, 3), shown
    else:
        assert code in (0, 10), shown
    assert shown.out


def test_targets_of_mipverify_jl_as_a_property(tmp_path: Path) -> None:
    """Three classes with constant scores 0.5, x, 1: class 1 reaches the label 0, but never beats class 2."""
    weight, bias = np.array([[0.0, 1, 0]]), np.array([0.5, 0, 1])
    from mipverify.network.formats import convert

    save_mat(tmp_path / "net.mat", {"fc/weight": weight, "fc/bias": bias})
    convert(tmp_path / "net.mat", tmp_path / "net.onnx")
    loaded = mipverify.load(tmp_path / "net.onnx")
    wider = mipverify.robustness(np.array([0.25]), 0, "0.5", num_classes=3, targets=[1])
    assert mipverify.verify(loaded, wider).verdict == "violated"
    text = property_text(np.array([0.0]), np.array([0.75]), 0, 1, 0.0)
    text = re.sub(r"\(assert \(<= \(-.*", "(assert (and (>= Y_1 Y_0) (>= Y_1 Y_2)))", text)
    (tmp_path / "p.vnnlib").write_text(text)
    assert mipverify.verify(loaded, mipverify.load_vnnlib(tmp_path / "p.vnnlib")).verdict == "holds"
