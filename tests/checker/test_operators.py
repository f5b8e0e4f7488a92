"""Each operator, read by the checker, gives what ONNX Runtime gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from mipverify_check import onnx_file
from mipverify_check.arithmetic import EXACT, FLOATS
from mipverify_check.bounds import aim, interval, ranges
from mipverify_check.errors import BadInputError
from mipverify_check.input_set import InputSet
from mipverify_check.operators import lowered
from onnx import helper

from tests.checker.making import model

RNG = np.random.default_rng(5)


def weight(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def one(operator: str, shape: list[int], *constants: np.ndarray | None, opset: int = 17, **attributes: Any) -> Any:
    """A model of one operator on x and constants."""
    held = {f"c{i}": value for i, value in enumerate(constants) if value is not None}
    names = ["x"] + [f"c{i}" if value is not None else "" for i, value in enumerate(constants)]
    return model([helper.make_node(operator, names, ["y"], **attributes)], held, shape, opset)


def integers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


IMAGE = [1, 4, 7, 6]
CASES = {
    "gemm": one("Gemm", [1, 5], weight(5, 3), weight(3)),
    "gemm transposed, with factors": one("Gemm", [1, 5], weight(3, 5), weight(1, 3), transB=1, alpha=0.3, beta=1.7),
    "gemm of a transposed input": one("Gemm", [5, 1], weight(5, 3), transA=1),
    "matmul": one("MatMul", [1, 4, 5], weight(5, 3)),
    "matmul of stacks": one("MatMul", [2, 4, 5], weight(2, 5, 3)),
    "matmul spread": one("MatMul", [1, 4, 5], weight(3, 5, 2)),
    "matmul by a vector": one("MatMul", [1, 4, 5], weight(5)),
    "matmul of few entries": one("MatMul", [1, 60], np.kron(np.eye(20), weight(3, 1)).astype(np.float32)),
    "conv": one("Conv", IMAGE, weight(6, 4, 3, 2), weight(6), strides=[2, 1], pads=[1, 0, 2, 1]),
    "conv in groups, dilated": one("Conv", IMAGE, weight(8, 2, 2, 2), group=2, dilations=[2, 3]),
    "conv same upper": one("Conv", IMAGE, weight(3, 4, 4, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv same lower": one("Conv", IMAGE, weight(3, 4, 4, 3), auto_pad="SAME_LOWER", strides=[2, 2]),
    "conv valid": one("Conv", IMAGE, weight(3, 4, 4, 3), auto_pad="VALID", strides=[2, 2]),
    "conv of one axis": one("Conv", [1, 3, 9], weight(2, 3, 4), weight(2), pads=[1, 2], strides=[2]),
    "conv of three axes": one("Conv", [1, 2, 4, 5, 3], weight(2, 2, 2, 3, 2), pads=[0, 1, 0, 1, 0, 1]),
    "transposed": one("ConvTranspose", IMAGE, weight(4, 3, 3, 2), weight(3), strides=[2, 3], pads=[1, 0, 0, 1]),
    "transposed in groups": one(
        "ConvTranspose", IMAGE, weight(4, 3, 3, 3), group=2, strides=[2, 2], output_padding=[1, 0], dilations=[2, 1]
    ),
    "transposed to a shape": one("ConvTranspose", [1, 1, 4], weight(1, 1, 2), output_shape=[4], auto_pad="VALID"),
    "transposed to a shape, no auto_pad": one("ConvTranspose", IMAGE, weight(4, 2, 3, 3), output_shape=[8, 7]),
    "transposed same upper": one(
        "ConvTranspose", IMAGE, weight(4, 2, 4, 3), auto_pad="SAME_UPPER", strides=[1, 2], output_shape=[7, 12]
    ),
    "maxpool": one("MaxPool", IMAGE, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 1, 1, 0]),
    "maxpool ceil": one("MaxPool", IMAGE, kernel_shape=[2, 4], strides=[2, 3], ceil_mode=1),
    "maxpool valid and ceil": one("MaxPool", IMAGE, kernel_shape=[2, 4], strides=[2, 3], ceil_mode=1, auto_pad="VALID"),
    "maxpool dilated": one("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 3]),
    "maxpool same": one("MaxPool", IMAGE, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_LOWER"),
    "average": one("AveragePool", IMAGE, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 1, 1, 0]),
    "average with padding": one("AveragePool", IMAGE, kernel_shape=[3, 2], pads=[1, 1, 1, 0], count_include_pad=1),
    "average ceil": one("AveragePool", IMAGE, kernel_shape=[2, 4], strides=[2, 3], ceil_mode=1),
    "average ceil with padding": one(
        "AveragePool", IMAGE, kernel_shape=[2, 4], strides=[2, 3], ceil_mode=1, pads=[1, 1, 0, 1], count_include_pad=1
    ),
    "average valid and ceil": one(
        "AveragePool", IMAGE, kernel_shape=[2, 4], strides=[2, 3], ceil_mode=1, auto_pad="VALID"
    ),
    "average same": one("AveragePool", IMAGE, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    "global average": one("GlobalAveragePool", IMAGE),
    "global maximum": one("GlobalMaxPool", IMAGE),
    "batch normalization": one(
        "BatchNormalization", IMAGE, weight(4), weight(4), weight(4), abs(weight(4)) + 0.1, epsilon=1e-3
    ),
    "add": one("Add", [1, 3, 4], weight(2, 1, 4)),
    "sub": one("Sub", [1, 3, 4], weight(4)),
    "sub from": model([helper.make_node("Sub", ["c", "x"], ["y"])], {"c": weight(3)}, [1, 3]),
    "mul": one("Mul", [1, 3, 4], weight(3, 1)),
    "div": one("Div", [1, 3, 4], weight(3, 1)),
    "neg": one("Neg", [1, 3]),
    "sum": model([helper.make_node("Sum", ["x", "c", "x", "d"], ["y"])], {"c": weight(3), "d": weight(1, 3)}, [1, 3]),
    "mean": model([helper.make_node("Mean", ["x", "c", "x"], ["y"])], {"c": weight(3)}, [1, 3]),
    "relu": one("Relu", [1, 7]),
    "leaky": one("LeakyRelu", [1, 7], alpha=0.3),
    "prelu": one("PRelu", [1, 3, 4], weight(3, 1)),
    "abs": one("Abs", [1, 7]),
    "clip": one("Clip", [1, 7], np.float32(-0.3), np.float32(0.4)),
    "clip low": one("Clip", [1, 7], np.float32(-0.3)),
    "clip high": one("Clip", [1, 7], None, np.float32(0.4)),
    "clip crossed": one("Clip", [1, 7], np.float32(0.5), np.float32(0.4)),
    "clip of old": one("Clip", [1, 7], opset=7, min=-0.3, max=0.4),
    "clip at the largest": one("Clip", [1, 3], np.float32(-3.4028235e38), np.float32(0.1)),
    "hard sigmoid": one("HardSigmoid", [1, 7], alpha=0.7, beta=0.4),
    "max": model([helper.make_node("Max", ["x", "c", "n"], ["y"])], {"c": weight(3), "n": weight(1, 3)}, [1, 3]),
    "min of three": model(
        [
            helper.make_node("Neg", ["x"], ["a"]),
            helper.make_node("Mul", ["x", "c"], ["b"]),
            helper.make_node("Min", ["x", "a", "b"], ["y"]),
        ],
        {"c": weight(5)},
        [1, 5],
    ),
    "reduce sum": one("ReduceSum", [1, 3, 4], integers(1), keepdims=0),
    "reduce mean": one("ReduceMean", [1, 3, 4], axes=[-1, 1]),
    "reduce max": one("ReduceMax", [1, 5, 4], axes=[1], keepdims=0),
    "reduce min": one("ReduceMin", [1, 5, 4], axes=[1, 2]),
    "flatten": one("Flatten", [1, 3, 4], axis=2),
    "reshape": one("Reshape", [1, 3, 4], integers(0, 2, -1)),
    "transpose": one("Transpose", [1, 3, 4], perm=[2, 0, 1]),
    "squeeze": one("Squeeze", [1, 3, 1, 4], integers(2)),
    "squeeze of old": one("Squeeze", [1, 3, 1, 4], opset=11, axes=[-2]),
    "unsqueeze": one("Unsqueeze", [1, 3], integers(0, -1)),
    "gather": one("Gather", [1, 5, 2], integers(3, -1, 0), axis=1),
    "gather one": one("Gather", [1, 5, 2], np.array(2), axis=1),
    "slice": one("Slice", [1, 9, 5], integers(7, 0), integers(-100, 3), integers(1, 2), integers(-2, 1)),
    "slice far": one("Slice", [1, 9], integers(-4), integers(2**62), integers(-1)),
    "slice of old": one("Slice", [1, 9], opset=9, starts=[2], ends=[-1], axes=[1]),
    "expand": one("Expand", [1, 3, 1], integers(2, 1, 4)),
    "tile": one("Tile", [1, 3, 2], integers(1, 2, 3)),
    "depth to space": one("DepthToSpace", [1, 8, 2, 3], blocksize=2),
    "depth to space, columns first": one("DepthToSpace", [1, 8, 2, 3], blocksize=2, mode="CRD"),
    "space to depth": one("SpaceToDepth", [1, 2, 4, 6], blocksize=2),
    "pad": one("Pad", [1, 3, 4], integers(0, 1, -1, 0, 2, 3), np.float32(0.7)),
    "pad of old": one("Pad", [1, 3, 4], opset=10, pads=[0, 1, 2, 0, 0, 1], value=0.4),
    "pad by the edge": one("Pad", [1, 3, 4], integers(0, 1, 1, 0, 2, 3), mode="edge"),
    "pad by reflection": one("Pad", [1, 3, 4], integers(0, 1, 1, 0, 2, 3), mode="reflect"),
    "concat": model([helper.make_node("Concat", ["x", "c", "x"], ["y"], axis=1)], {"c": weight(1, 2, 4)}, [1, 3, 4]),
    "split": model(
        [
            helper.make_node("Split", ["x", "s"], ["a", "b"], axis=1),
            helper.make_node("Concat", ["b", "a"], ["y"], axis=1),
        ],
        {"s": integers(2, 3)},
        [1, 5],
    ),
    "cast": one("Cast", [1, 3], to=onnx.TensorProto.FLOAT),
    "shapes computed": model(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Gather", ["s", "zero"], ["b"], axis=0),
            helper.make_node("Unsqueeze", ["b", "axis"], ["u"]),
            helper.make_node("Concat", ["u", "rest"], ["t"], axis=0),
            helper.make_node("Reshape", ["x", "t"], ["y"]),
        ],
        {"zero": np.array(0), "axis": integers(0), "rest": integers(-1)},
        [1, 3, 4],
    ),
    "weights computed": model(
        [
            helper.make_node("Transpose", ["w"], ["t"]),
            helper.make_node("Mul", ["t", "k"], ["m"]),
            helper.make_node("MatMul", ["x", "m"], ["y"]),
        ],
        {"w": weight(3, 4), "k": weight(1)},
        [1, 4],
    ),
}


def stored(built: Any, folder: Path) -> Path:
    path = folder / "net.onnx"
    onnx.save(built, path)
    return path


def scores(path: Path, points: np.ndarray, arithmetic: Any = FLOATS) -> np.ndarray:
    """The checker's values (B, outputs) at points (B, inputs)."""
    network = lowered(onnx_file.read(str(path)), arithmetic)
    return network.values(arithmetic.array(points).T)[network.output.node].T


@pytest.mark.parametrize("name", CASES)
def test_reads_an_operator_as_onnx_runtime_does(name: str, tmp_path: Path) -> None:
    path = stored(CASES[name], tmp_path)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    points = np.random.default_rng(3).normal(size=(6, *shape)).astype(np.float32)
    wanted = np.stack([session.run(None, {"x": point})[0].reshape(-1) for point in points])
    flat = points.reshape(len(points), -1)
    np.testing.assert_allclose(scores(path, flat), wanted, rtol=1e-5, atol=1e-5)
    if name != "batch normalization":
        np.testing.assert_allclose(scores(path, flat[:1], EXACT).astype(float), wanted[:1], rtol=1e-5, atol=1e-5)


def test_a_bound_of_clip_is_the_number_in_the_file(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["d"], to=onnx.TensorProto.DOUBLE),
        helper.make_node("Clip", ["d", "low", "high"], ["c"]),
        helper.make_node("Sub", ["c", "high"], ["y"]),
    ]
    path = stored(model(nodes, {"low": np.float64(-1), "high": np.float64(0.1)}, [1, 1]), tmp_path)
    assert scores(path, np.array([[3.0]]), EXACT).item() == 0


REFUSED = {
    "cast to integers": one("Cast", [1, 3], to=onnx.TensorProto.INT64),
    "the largest number from below": one("Clip", [1, 1], np.float32(3.4028235e38)),
    "cast to float16": one("Cast", [1, 3], to=onnx.TensorProto.FLOAT16),
    "same pads, dilated": one("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 2], auto_pad="SAME_UPPER"),
    "a sine": one("Sin", [1, 3]),
    "a softmax inside": model(
        [helper.make_node("Softmax", ["x"], ["s"]), helper.make_node("Relu", ["s"], ["y"])], {}, [1, 3]
    ),
    "a softmax cast to integers": model(
        [helper.make_node("Softmax", ["x"], ["s"]), helper.make_node("Cast", ["s"], ["y"], to=6)], {}, [1, 3]
    ),
    "a softmax over a part": one("Softmax", [1, 3, 2], axis=-1),
    "a class of a part": one("ArgMax", [1, 3]),
    "an axis that is none": one("ArgMax", [1, 3], axis=2),
    "a class that a type does not hold": model(
        [helper.make_node("ArgMax", ["x"], ["s"], axis=1), helper.make_node("Cast", ["s"], ["y"], to=3)], {}, [1, 300]
    ),
    "a function of the class": model(
        [helper.make_node("ArgMax", ["x"], ["s"], axis=1), helper.make_node("ArgMax", ["s"], ["y"])], {}, [1, 3]
    ),
    "a class of moved scores": model(
        [
            helper.make_node("Softmax", ["x"], ["s"]),
            helper.make_node("Reshape", ["s", "two"], ["t"]),
            helper.make_node("ArgMax", ["t"], ["y"], axis=1),
        ],
        {"two": integers(2, 2)},
        [1, 4],
    ),
    "x times x": model([helper.make_node("Mul", ["x", "x"], ["y"])], {}, [1, 3]),
    "division by zero": one("Div", [1, 2], np.zeros(2, np.float32)),
    "an infinite weight": one("Add", [1, 2], np.array([1, np.inf], np.float32)),
    "a wrong shape": one("Reshape", [1, 3], integers(2, 2)),
    "an index out of range": one("Gather", [1, 3], integers(7), axis=1),
    "dropout in training": one("Dropout", [1, 3], np.float32(0.5), np.array(True)),
    "a window too large": one("MaxPool", [1, 1, 2, 2], kernel_shape=[5, 5]),
    "an enormous window": one("MaxPool", [1, 1, 2, 2], kernel_shape=[2**19, 2**19], pads=[2**19] * 4),
    "a slice backward to the largest integer": one(
        "Slice", [1, 6], integers(5), integers(2**63 - 1), integers(1), integers(-1)
    ),
    "a squeeze of no axes": one("Squeeze", [1, 3, 1], integers()),
    "pads that take away too much": one("Pad", [1, 3], integers(0, -4, 0, 6)),
    "an enormous tensor": one("Expand", [1, 2], integers(2**40, 2)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_it_does_not_read(name: str, tmp_path: Path) -> None:
    path = stored(REFUSED[name], tmp_path)
    with pytest.raises(BadInputError):
        lowered(onnx_file.read(str(path)), FLOATS)


def test_weights_in_another_file_are_read_beside_the_network_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for folder, value in ((tmp_path, -5), (tmp_path / "here", 5)):
        np.full(1, value, np.float32).tofile(folder / "weights.bin")
    outside = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "w")
    onnx.external_data_helper.set_external_data(outside, "weights.bin")
    outside.ClearField("raw_data")
    add = helper.make_node("Add", ["x", "w"], ["y"])
    built = model([add], {}, [1, 1])
    built.graph.initializer.append(outside)
    path = tmp_path / "net.onnx"
    path.write_bytes(built.SerializeToString())
    assert scores(path, np.zeros((1, 1))).item() == -5
    # The bytes of a node's constant are no part of what is read and hashed.
    path.write_bytes(
        model([helper.make_node("Constant", [], ["w"], value=outside), add], {}, [1, 1]).SerializeToString()
    )
    with pytest.raises(BadInputError, match="another file"):
        lowered(onnx_file.read(str(path)), FLOATS)


def test_names_that_say_two_things_are_refused(tmp_path: Path) -> None:
    twice = one("Add", [1, 1], weight(1))
    twice.graph.initializer.append(onnx.numpy_helper.from_array(weight(1), "c0"))
    sloped = one("LeakyRelu", [1, 1], alpha=0.5)
    sloped.graph.node[0].attribute.append(helper.make_attribute("alpha", 0.1))
    for built in (twice, sloped):
        (tmp_path / "net.onnx").write_bytes(built.SerializeToString())
        with pytest.raises(BadInputError, match=r"one name|twice"):
            onnx_file.read(str(tmp_path / "net.onnx"))


TWICE = {
    "relu": [("Relu", "h", "a"), ("Relu", "h", "b"), ("Sub", ("a", "b"), "d")],
    "relu and abs": [("Relu", "h", "a"), ("Abs", "h", "b"), ("Add", ("a", "a"), "c"), ("Sub", ("c", "b"), "e"),
                     ("Sub", ("e", "h"), "d")],
    "relu of a movement": [("Transpose", "h", "s"), ("Transpose", "h", "t"), ("Relu", "s", "a"), ("Relu", "t", "b"),
                           ("Sub", ("a", "b"), "d")],
}  # fmt: skip


@pytest.mark.parametrize("arithmetic", [FLOATS, EXACT], ids=["floats", "exact"])
@pytest.mark.parametrize("name", TWICE)
def test_relus_of_the_same_values_are_one(name: str, arithmetic: Any, tmp_path: Path) -> None:
    """d is zero everywhere, which a pass finds where it takes the coefficients of equal ReLUs together."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"])]
    nodes += [
        helper.make_node(kind, [read] if isinstance(read, str) else read, [made]) for kind, read, made in TWICE[name]
    ]
    onnx.save(model([*nodes, helper.make_node("Flatten", ["d"], ["y"])], {"w": weight(3, 4)}, [2, 3]), tmp_path / "n")
    network = lowered(onnx_file.read(str(tmp_path / "n")), arithmetic)
    layers = [network.relus[made] for kind, _, made in TWICE[name] if kind in ("Relu", "Abs")]
    assert layers == [layers[0]] * 2
    ends = arithmetic.array(np.full((6, 1), 1.0))
    found = ranges(interval(network, InputSet(arithmetic, -ends, ends)), aim(network.output.node, np.arange(8)))
    assert np.abs(found.astype(np.float64)).max() < 1e-12
