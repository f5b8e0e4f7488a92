"""MIPVerify.jl's .mat files: what is written computes what its layers compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from mipverify import InputError
from mipverify.network.formats import convert
from tests.formats.sources import assert_close, conv, dense, dense_arrays, outputs, pool, relu, save_mat

SAMPLES = 3
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 7), min_size=2, max_size=5, unique=True), seed=seeds)
def test_dense_layers_in_any_order_of_the_file(
    sizes: list[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, rng = tmp_path_factory.mktemp("mat"), np.random.default_rng(seed)
    names = [f"fc{i}" for i in range(1, len(sizes) - 1)] + ["logits"]
    arrays = dense_arrays(rng, sizes, names)
    shuffled = {key: arrays[key] for key in rng.permutation(list(arrays))}
    done = convert(save_mat(folder / "net.mat", shuffled), folder / "net.onnx")
    x = rng.normal(size=(SAMPLES, sizes[0]))
    expected = []
    for sample in x:
        value = sample
        for name in names[:-1]:
            value = relu(dense(value, arrays, name))
        expected.append(dense(value, arrays, names[-1]))
    assert_close(outputs(folder / "net.onnx", x), np.array(expected))
    assert (done.input_shape, done.output_shape) == ((sizes[0],), (sizes[-1],))
    assert done.parameters == sum(array.size for array in arrays.values())
    assert done.difference is not None
    assert 0 <= done.difference < 1e-3


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(4, 8), st.integers(4, 8), st.integers(1, 3)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.sampled_from(["same", "valid", (1, 0, 2, 1)]),
    kind=st.sampled_from(["max", "average"]),
    order=st.sampled_from(["hwc", "chw"]),
    seed=seeds,
)
def test_convolution_pooling_and_flatten(
    size: tuple[int, int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: str | tuple[int, int, int, int],
    kind: str,
    order: str,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder, rng = tmp_path_factory.mktemp("mat"), np.random.default_rng(seed)
    weight, bias = rng.normal(size=(*kernel, size[2], 2)), rng.normal(size=(1, 2))
    x = rng.normal(size=(SAMPLES, *size))
    pooled = [pool(relu(conv(sample, weight, bias, stride, pad)), 2, kind) for sample in x]
    flat = np.stack([(p if order == "hwc" else np.moveaxis(p, -1, 0)).reshape(-1) for p in pooled])
    arrays = {"conv1/weight": weight, "conv1/bias": bias, **dense_arrays(rng, [flat.shape[1], 3], ["logits"])}
    padding = pad if isinstance(pad, str) else "/".join(map(str, pad))
    word = "maxpool" if kind == "max" else "avgpool"
    layers = f"conv1:stride={stride[0]}/{stride[1]},pad={padding} relu {word}=2 flatten={order} logits"
    height, width, channels = size
    source = save_mat(folder / "net.mat", arrays)
    convert(source, folder / "net.onnx", layers=layers, input_shape=(channels, height, width))
    expected = np.stack([dense(row, arrays, "logits") for row in flat])
    assert_close(outputs(folder / "net.onnx", np.moveaxis(x, -1, 1)), expected)


@settings(max_examples=15, deadline=None)
@given(seed=seeds, image=st.booleans())
def test_masked_relus(seed: int, image: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, rng = tmp_path_factory.mktemp("mat"), np.random.default_rng(seed)
    shape = (3, 4, 2) if image else (24,)
    arrays = {"mask": rng.integers(-1, 2, size=shape), **dense_arrays(rng, [24, 2], ["logits"])}
    source = save_mat(folder / "net.mat", arrays)
    convert(
        source,
        folder / "net.onnx",
        layers="relu:mask=mask flatten logits",
        input_shape=(2, 3, 4) if image else (24,),
    )
    x = rng.normal(size=(SAMPLES, *shape))
    mask = arrays["mask"]
    masked = np.where(mask < 0, 0, np.where(mask > 0, x, relu(x)))
    expected = np.stack([dense(sample.reshape(-1), arrays, "logits") for sample in masked])
    assert_close(outputs(folder / "net.onnx", np.moveaxis(x, -1, 1) if image else x), expected)


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_normalization_and_skip_connections(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, rng = tmp_path_factory.mktemp("mat"), np.random.default_rng(seed)
    arrays = {
        "conv1/weight": rng.normal(size=(3, 3, 2, 2)),
        "conv1/bias": rng.normal(size=2),
        "side/weight": rng.normal(size=(1, 1, 2, 2)),
        "side/bias": rng.normal(size=2),
        "std": np.array([2.0, 0.5]),
        **dense_arrays(rng, [18, 3], ["logits"]),
    }
    layers = (
        "normalize:mean=0.5/0.25,std=std as=start conv1:relu as=main from=start side add=main:relu flatten=chw logits"
    )
    convert(save_mat(folder / "net.mat", arrays), folder / "net.onnx", layers=layers, input_shape=(2, 3, 3))
    x = rng.normal(size=(SAMPLES, 3, 3, 2))
    expected = []
    for sample in x:
        start = (sample - [0.5, 0.25]) / [2.0, 0.5]
        main = relu(conv(start, arrays["conv1/weight"], arrays["conv1/bias"], (1, 1), "same"))
        side = conv(start, arrays["side/weight"], arrays["side/bias"], (1, 1), "same")
        expected.append(dense(np.moveaxis(relu(side + main), -1, 0).reshape(-1), arrays, "logits"))
    assert_close(outputs(folder / "net.onnx", np.moveaxis(x, -1, 1)), np.array(expected))


def test_overlapping_pooling_by_hand(tmp_path: Path) -> None:
    arrays = {"out/weight": np.eye(2), "out/bias": np.zeros(2)}
    source = save_mat(tmp_path / "net.mat", arrays)
    convert(source, tmp_path / "net.onnx", layers="maxpool=1/3:stride=1/2 flatten out", input_shape=(1, 1, 4))
    # windows start at 0 and 2; the second has lost its last cell
    assert outputs(tmp_path / "net.onnx", np.array([[[[1.0, 5, 2, 3]]]])).tolist() == [[5, 3]]


def test_equal_sizes_need_a_list_unless_numbers_tell(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    numbered = dense_arrays(rng, [4, 4, 4, 2], ["fc1", "fc2", "logits"])
    convert(save_mat(tmp_path / "numbered.mat", numbered), tmp_path / "net.onnx")
    named = dense_arrays(rng, [4, 4, 4, 2], ["one", "two", "logits"])
    with pytest.raises(InputError, match=r"several orders .*--layers"):
        convert(save_mat(tmp_path / "named.mat", named), tmp_path / "net.onnx")
    convert(tmp_path / "named.mat", tmp_path / "net.onnx", layers="two:relu one:relu logits")
    x = rng.normal(size=(1, 4))
    value = dense(relu(dense(relu(dense(x[0], named, "two")), named, "one")), named, "logits")
    assert_close(outputs(tmp_path / "net.onnx", x), value[None])


def test_structures_sparse_weights_and_other_names(tmp_path: Path) -> None:
    weight, bias = np.array([[1.0, 0], [0, -2]]), np.array([1.0, 2])
    save_mat(tmp_path / "struct.mat", {"fc": {"weight": weight, "bias": bias}})
    save_mat(tmp_path / "sparse.mat", {"fc/weight": scipy.sparse.csc_matrix(weight), "fc/bias": bias})
    save_mat(tmp_path / "names.mat", {"fc/matrix": weight, "fc/offset": bias})
    save_mat(tmp_path / "unbiased.mat", {"fc/weight": weight})
    for name, layers in (("struct", None), ("sparse", None), ("names", "fc:weight=matrix,bias=offset")):
        convert(tmp_path / f"{name}.mat", tmp_path / "net.onnx", layers=layers)
        assert outputs(tmp_path / "net.onnx", np.array([[3.0, 4]])).tolist() == [[4, -6]]
    convert(tmp_path / "unbiased.mat", tmp_path / "net.onnx", layers="fc:bias=none")
    assert outputs(tmp_path / "net.onnx", np.array([[3.0, 4]])).tolist() == [[3, -8]]


def test_rounding_to_float32_is_reported(tmp_path: Path) -> None:
    exact = convert(
        save_mat(tmp_path / "a.mat", {"fc/weight": np.eye(2), "fc/bias": np.ones(2)}), tmp_path / "net.onnx"
    )
    rounded = convert(
        save_mat(tmp_path / "a.mat", {"fc/weight": np.eye(2) / 3, "fc/bias": np.ones(2)}), tmp_path / "net.onnx"
    )
    assert exact.rounding == 0
    assert 1e-9 < rounded.rounding < 1e-7
