"""Files that cannot be used: one line that says what and where, before any work is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mipverify.errors import InputError
from mipverify.network import load, unsupported_operators
from tests.network.graphs import Graph


def _two_steps(operator: str, **options: Any) -> Callable[[], bytes]:
    """A model that goes on after `operator`."""

    def build() -> bytes:
        g = Graph([1, 4])
        return g.model(g.node("Neg", [g.node(operator, ["x"], **options)])).SerializeToString()

    return build


def _binary(operator: str) -> Callable[[], bytes]:
    def build() -> bytes:
        g = Graph([4, 4])
        return g.model(g.node(operator, ["x", g.node("Relu", ["x"])])).SerializeToString()

    return build


def _shaped(shape: list[Any]) -> Callable[[], bytes]:
    def build() -> bytes:
        g = Graph(shape)
        return g.model(g.node("Relu", ["x"])).SerializeToString()

    return build


def _weights(value: float, dtype: int = TensorProto.FLOAT) -> Callable[[], bytes]:
    def build() -> bytes:
        g = Graph([1, 2])
        g.constants.append(helper.make_tensor("w17", dtype, [2], [value, 1.0]))
        return g.model(g.node("Add", ["x", "w17"])).SerializeToString()

    return build


def _two_inputs() -> bytes:
    g = Graph([1, 2])
    model = g.model(g.node("Add", ["x", "second"]))
    model.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [1, 2]))
    return model.SerializeToString()


def _two_outputs() -> bytes:
    g = Graph([1, 2])
    return g.model([g.node("Relu", ["x"]), g.node("Neg", ["x"])]).SerializeToString()


def _input_type(dtype: int) -> Callable[[], bytes]:
    def build() -> bytes:
        model = Graph([1, 2]).model("x")
        model.graph.input[0].type.tensor_type.elem_type = dtype
        return model.SerializeToString()

    return build


def _opset(version: int) -> Callable[[], bytes]:
    def build() -> bytes:
        g = Graph([1, 2])
        model = g.model(g.node("Relu", ["x"]))
        model.opset_import[0].version = version
        return model.SerializeToString()

    return build


def _foreign() -> bytes:
    g = Graph([1, 2])
    model = g.model(g.node("Gelu", ["x"], domain="com.microsoft"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model.SerializeToString()


def _conv_batch() -> bytes:
    g = Graph([2, 1, 4, 4])
    return g.model(g.node("Conv", ["x", g.random(1, 1, 3, 3)])).SerializeToString()


def _divided_by_zero() -> bytes:
    g = Graph([1, 2])
    return g.model(g.node("Div", ["x", g.constant([1.0, 0.0])])).SerializeToString()


def _misfit() -> bytes:
    g = Graph([1, 2])
    return g.model(g.node("Gemm", ["x", g.random(3, 3)])).SerializeToString()


def _reshaped() -> bytes:
    g = Graph([1, 4])
    return g.model(g.node("Reshape", ["x", g.constant([3, -1], np.int64)])).SerializeToString()


def _softmax_over_rows() -> bytes:
    g = Graph([1, 2, 3])
    return g.model(g.node("Softmax", ["x"], axis=1)).SerializeToString()


def _bad_constant() -> bytes:
    g = Graph([1, 2])
    value = numpy_helper.from_array(np.array([np.inf], dtype=np.float32))
    return g.model(g.node("Add", ["x", g.node("Constant", [], value=value)])).SerializeToString()


def _constant_output() -> bytes:
    g = Graph([1, 2])
    return g.model(g.node("Shape", ["x"])).SerializeToString()


def _infinite_clip(**bounds: float) -> Callable[[], bytes]:
    def build() -> bytes:
        g = Graph([1, 2])
        return g.model(g.node("Clip", ["x", *(g.constant(value) for value in bounds.values())])).SerializeToString()

    return build


def _unknown_reader() -> bytes:
    g = Graph([1, 2])
    return g.model(g.node("Add", ["x", "nowhere"])).SerializeToString()


def _dropout_mask() -> bytes:
    g = Graph([1, 2])
    y, mask = g.node("Dropout", ["x"], outputs=2)
    return g.model(g.node("Add", [y, g.node("Cast", [mask], to=TensorProto.FLOAT)])).SerializeToString()


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "operator": (_two_steps("Sin"), r"operator Sin \(node 'node_0_Sin', opset 18\): not supported"),
    "sign": (_two_steps("Sign"), "operator Sign .*encoding"),
    "softmax inside": (_two_steps("Softmax"), "operator Softmax .*not piecewise linear"),
    "argmax inside": (_two_steps("ArgMax"), "operator ArgMax .*last layer"),
    "hard swish": (_two_steps("HardSwish"), "operator HardSwish .*parabola"),
    "thresholded": (_two_steps("ThresholdedRelu", alpha=0.5), r"operator ThresholdedRelu .*jumps from 0 to 0\.5"),
    "shrink": (_two_steps("Shrink", lambd=0.5), r"operator Shrink .*jumps from 0 to 0\.5"),
    "shrink too little": (_two_steps("Shrink", lambd=0.5, bias=0.25), "operator Shrink .*jumps from 0 to 0.25"),
    "norm over windows": (_two_steps("GlobalLpPool"), "operator GlobalLpPool .*2-norm"),
    "recurrent": (_two_steps("LSTM", hidden_size=2), "operator LSTM .*recurrent"),
    "quantized": (_two_steps("QuantizeLinear"), "operator QuantizeLinear .*quantized"),
    "foreign domain": (_foreign, "com.microsoft"),
    "product": (_binary("Mul"), "operator Mul .*product of two tensors"),
    "matrix product": (_binary("MatMul"), "operator MatMul .*product of two tensors"),
    "quotient": (_binary("Div"), "operator Div .*depends on the network's input"),
    "division by zero": (_divided_by_zero, "operator Div .*zero"),
    "integers": (_two_steps("Cast", to=TensorProto.INT64), "operator Cast .*int64"),
    "batch": (_conv_batch, "operator Conv .*batch of 2"),
    "misfit": (_misfit, "operator Gemm .*fit"),
    "reshape": (_reshaped, "operator Reshape .*reshaped"),
    "softmax over rows": (_softmax_over_rows, "operator Softmax .*axis 1"),
    "NaN weight": (_weights(float("nan")), "initializer 'w17'.*NaN"),
    "infinite weight": (_weights(float("inf")), "operator Add .*'w17'.*infinity"),
    "half precision weight": (_weights(1.0, TensorProto.FLOAT16), "operator Add .*'w17'.*float16"),
    "bfloat16 weight": (_weights(1.0, TensorProto.BFLOAT16), "initializer 'w17'.*bfloat16"),
    "infinite constant": (_bad_constant, "operator Add .*infinity"),
    "two inputs": (_two_inputs, "one input.*'x', 'second'"),
    "two outputs": (_two_outputs, "one output.*'relu0_0', 'neg1_0'"),
    "integer input": (_input_type(TensorProto.INT32), "input 'x'.*int32"),
    "half precision input": (_input_type(TensorProto.FLOAT16), "input 'x'.*float16"),
    "empty shape": (_shaped([1, 0]), "input 'x' has size 0 along axis 1"),
    "open size": (_shaped([1, "length"]), "input 'x' .*'length' along axis 1"),
    "old opset": (_opset(6), "opset 6"),
    "future opset": (_opset(999), "opset 999"),
    "constant output": (_constant_output, "does not depend on the input.*int64"),
    "a lower bound of infinity": (_infinite_clip(min=np.inf), "operator Clip .*inf"),
    "an upper bound of minus infinity": (_infinite_clip(min=0.0, max=-np.inf), "operator Clip .*inf"),
    "a bound that is NaN": (_infinite_clip(min=np.nan), "initializer 'c0'.*NaN"),
    "dangling name": (_unknown_reader, "'nowhere', which nothing produces"),
    "mask of a dropout": (_dropout_mask, "operator Cast .*dropout0_1"),
    "empty file": (lambda: b"", "empty"),
    "text": (lambda: b"this is not a network at all\n" * 9, "not an ONNX model"),
    "truncated": (lambda: _two_steps("Relu")()[:-20], "not an ONNX model"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    build, message = REFUSED[name]
    path = tmp_path / "bad.onnx"
    path.write_bytes(build())
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        load(tmp_path)
    with pytest.raises(InputError, match=r"missing\.onnx.*No such file"):
        load(tmp_path / "missing.onnx")
    (tmp_path / "bad.onnx.gz").write_bytes(b"not gzip")
    with pytest.raises(InputError, match="gzip"):
        load(tmp_path / "bad.onnx.gz")


def test_all_unsupported_operators_are_listed(tmp_path: Path) -> None:
    g = Graph([1, 4])
    h = g.node("Sin", ["x"])
    h = g.node("Add", [h, g.node("Mul", ["x", g.node("Relu", ["x"])])])
    h = g.node("Tanh", [h])
    path = g.save(tmp_path / "net.onnx", g.node("Neg", [h]))
    found = unsupported_operators(path)
    assert {(entry.operator, entry.node) for entry in found} == {
        ("Sin", "node_0_Sin"),
        ("Tanh", "node_4_Tanh"),
        ("Mul", "node_2_Mul"),
    }
    assert all(entry.opset == 18 and entry.reason for entry in found)
    with pytest.raises(InputError, match="and 1 more"):
        load(path)


def test_nothing_is_unsupported_in_a_good_file(tmp_path: Path) -> None:
    g = Graph([1, 4])
    assert unsupported_operators(g.save(tmp_path / "net.onnx", g.node("Relu", ["x"]))) == []


def test_damaged_files_never_crash(tmp_path: Path) -> None:
    """A byte changed anywhere is an InputError or a network, nothing else."""
    g = Graph([1, 1, 4, 4])
    h = g.node("MaxPool", [g.node("Conv", ["x", g.random(1, 1, 2, 2)], pads=[1, 1, 0, 0])], kernel_shape=[2, 2])
    h = g.node("Reshape", [h, g.constant([1, -1], np.int64)])
    whole = np.frombuffer(g.model(g.node("Clip", [h, g.constant(0)])).SerializeToString(), dtype=np.uint8)
    rng, path, refused = np.random.default_rng(1), tmp_path / "net.onnx", 0
    for _ in range(300):
        damaged = whole.copy()
        damaged[rng.integers(len(whole), size=2)] = rng.integers(256, size=2)
        path.write_bytes(damaged.tobytes())
        try:
            load(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100
