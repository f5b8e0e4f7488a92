"""NNet files: weights as they stand, or with the normalization of inputs and outputs folded in."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipverify import InputError
from mipverify.network.formats import convert
from tests.formats.sources import assert_close, nnet_text, outputs, random_nnet, relu


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    normalize=st.sampled_from([None, "none", "inputs", "outputs", "both"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_layers_and_normalization(
    sizes: list[int], normalize: str | None, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, rng = tmp_path_factory.mktemp("nnet"), np.random.default_rng(seed)
    weights, biases, ends, means, ranges = random_nnet(rng, sizes)
    (folder / "net.nnet").write_text(nnet_text(weights, biases, ends, means, ranges))
    done = convert(folder / "net.nnet", folder / "net.onnx", normalize=normalize)
    x = rng.uniform(*ends, size=(5, sizes[0])).astype(np.float32)
    value = x.astype(np.float64)
    if normalize in ("inputs", "both"):
        value = (value - means[:-1]) / ranges[:-1]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        value = relu(value @ weight.T + bias)
    value = value @ weights[-1].T + biases[-1]
    if normalize in ("outputs", "both"):
        value = value * ranges[-1] + means[-1]
    assert_close(outputs(folder / "net.onnx", x), value)
    assert done.input_shape == (sizes[0],)
    assert [layer.kind for layer in done.layers].count("Relu") == len(sizes) - 2


def test_a_network_by_hand(tmp_path: Path) -> None:
    text = "// y = 2 relu(x0 - x1) + 1\n2,2,1,2\n2,1,1\n0\n0,0\n1,1\n0,0,10\n1,1,3\n1,-1\n0\n2\n1\n"
    (tmp_path / "net.nnet.gz").write_bytes(gzip.compress(text.encode()))
    convert(tmp_path / "net.nnet.gz", tmp_path / "net.onnx")
    assert outputs(tmp_path / "net.onnx", np.array([[3.0, 1], [1, 3]])).tolist() == [[5], [1]]
    convert(tmp_path / "net.nnet.gz", tmp_path / "net.onnx", normalize="outputs")
    assert outputs(tmp_path / "net.onnx", np.array([[3.0, 1]])).tolist() == [[25]]


GOOD = "// header\n2,2,1,2,\n2,1,1,\n0,\n0,0,\n1,1,\n0,0,0,\n1,1,1,\n1,-1,\n0,\n2,\n1,\n"


@pytest.mark.parametrize(
    ("before", "after", "line", "words"),
    [
        ("2,2,1,2,\n2,1,1,\n", "two layers\n2,1,1,\n", 2, "whole numbers"),
        ("2,2,1,2,\n", "2,\n", 2, "number of layers"),
        ("2,1,1,\n", "2,1,\n", 3, "2 numbers instead of 3"),
        ("2,1,1,\n", "2,1,3,\n", 3, "the header says 2 to 1"),
        ("2,1,1,\n", "2,0,1,\n", 3, "from 1"),
        ("0,0,\n1,1,\n", "0,0,\n1,-1,\n", 6, "input 1"),
        ("0,0,0,\n", "0,0,\n", 7, "means"),
        ("1,1,1,\n", "1,0,1,\n", 8, "range 1 is zero"),
        ("1,-1,\n", "1,nan,\n", 9, "NaN"),
        ("1,-1,\n", "1,x,\n", 9, "numbers"),
        ("1,-1,\n", "1,-1,5,\n", 9, "unit 0 of layer 1"),
        ("2,\n1,\n", "2,\n", 11, "bias of unit 0 of layer 2"),
        ("2,\n1,\n", "2,\n1,\n7,\n", 13, "after the last bias"),
    ],
)
def test_damage_is_named_by_its_line(before: str, after: str, line: int, words: str, tmp_path: Path) -> None:
    assert before in GOOD
    (tmp_path / "net.nnet").write_text(GOOD.replace(before, after, 1))
    with pytest.raises(InputError) as error:
        convert(tmp_path / "net.nnet", tmp_path / "net.onnx")
    assert f"line {line}" in str(error.value)
    assert words in str(error.value)
    assert not (tmp_path / "net.onnx").exists()
    assert "\n" not in str(error.value)


@given(cut=st.integers(0, len(GOOD) - 3))
@settings(max_examples=40, deadline=None)
def test_a_truncated_file_is_refused(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("nnet")
    (folder / "net.nnet").write_text(GOOD[:cut])
    with pytest.raises(InputError):
        convert(folder / "net.nnet", folder / "net.onnx")
    assert [file.name for file in folder.iterdir()] == ["net.nnet"]
