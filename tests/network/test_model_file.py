"""The bytes that were hashed are the bytes that are imported and replayed, weights in other files included."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mipverify.errors import InputError
from mipverify.network import load
from mipverify.network.replay import replay_of
from tests.network.graphs import Graph


def save(folder: Path, weight: np.ndarray, location: str | None = None, constant: bool = False) -> Path:
    """y = x W, with W in the model, or in the file `location`, as an initializer or a Constant."""
    g = Graph([1, 2])
    folder.mkdir(exist_ok=True)
    if constant:
        tensor = numpy_helper.from_array(weight.astype(np.float32), "w")
        model = g.model(g.node("MatMul", ["x", g.node("Constant", [], value=tensor)]))
        tensors = [a.t for node in model.graph.node for a in node.attribute if a.name == "value"]
    else:
        model = g.model(g.node("MatMul", ["x", g.constant(weight)]))
        tensors = list(model.graph.initializer)
    path = folder / "net.onnx"
    if location is not None:
        for tensor in tensors:
            (folder / Path(location).name).write_bytes(tensor.raw_data)
            onnx.external_data_helper.set_external_data(tensor, location)
            tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    return path


ONE, TWO = np.eye(2), 2 * np.eye(2)
X = np.array([[1.0, 2.0]], np.float32)


@pytest.mark.parametrize("location", [None, "weights.bin"])
@pytest.mark.parametrize("constant", [False, True])
def test_a_file_that_is_replaced_changes_nothing(tmp_path: Path, location: str | None, constant: bool) -> None:
    path = save(tmp_path, ONE, location, constant)
    network = load(path)
    save(tmp_path, TWO, location, constant)
    np.testing.assert_array_equal(replay_of(network).run(X), X)
    np.testing.assert_array_equal(network.forward(X).reshape(1, 2), X)
    assert network.sha256 != load(path).sha256
    path.unlink()
    np.testing.assert_array_equal(replay_of(network).run(X), X)


def test_the_hash_of_a_whole_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = save(tmp_path, ONE)
    assert load(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("constant", [False, True])
def test_the_hash_covers_weights_in_other_files(tmp_path: Path, constant: bool) -> None:
    one, two = (save(tmp_path / name, w, "weights.bin", constant) for name, w in (("a", ONE), ("b", TWO)))
    assert one.read_bytes() == two.read_bytes()
    assert load(one).sha256 != load(two).sha256
    assert load(one).sha256 == load(save(tmp_path / "c", ONE, "weights.bin", constant)).sha256


def test_a_packed_file_finds_its_weights(tmp_path: Path) -> None:
    plain = save(tmp_path, TWO, "weights.bin")
    packed = tmp_path / "net.onnx.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    np.testing.assert_array_equal(replay_of(load(packed)).run(X), 2 * X)


@pytest.mark.parametrize("location", ["../weights.bin", "sub/../../weights.bin", "ABSOLUTE", "missing.bin", "link.bin"])
def test_weights_outside_of_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    path = save(folder, ONE, str(tmp_path / "weights.bin") if location == "ABSOLUTE" else location)
    outside = tmp_path / "weights.bin"
    outside.write_bytes(ONE.astype(np.float32).tobytes())
    if location == "link.bin":
        (folder / "link.bin").unlink()
        (folder / "link.bin").symlink_to(outside)
    if location == "missing.bin":
        (folder / "missing.bin").unlink()
    with pytest.raises(InputError, match=r"net\.onnx: its external weights cannot be read") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_weights_that_end_too_early_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, ONE, "weights.bin")
    (tmp_path / "weights.bin").write_bytes(b"1234")
    with pytest.raises(InputError, match=r"net\.onnx: "):
        load(path)


def test_a_pipe_does_not_stop_the_reader(tmp_path: Path) -> None:
    path = save(tmp_path, ONE, "weights.bin")
    (tmp_path / "weights.bin").unlink()
    os.mkfifo(tmp_path / "weights.bin")
    with pytest.raises(InputError, match=r"net\.onnx: its external weights cannot be read"):
        load(path)
