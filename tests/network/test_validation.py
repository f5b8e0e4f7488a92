"""What is read is compared with what runs, before anything is proven of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.parser import parse_model

from mipverify.engine import verify
from mipverify.errors import InputError
from mipverify.network import load
from mipverify.network.builder import Builder, Tensor
from mipverify.network.replay import replay_of
from mipverify.network.rewrites import REWRITES, OnnxNode
from mipverify.network.validation import unit_box, validated
from mipverify.specification import robustness
from tests.network.graphs import Graph, runtime


def _mixing_the_batch(path: Path) -> Path:
    """y = (x - mean of the batch) + relu(x) - relu(-x) - x: 0 for any single input."""
    g = Graph(["N", 2])
    centered = g.node("Sub", ["x", g.node("ReduceMean", ["x", g.constant([0], np.int64)])])
    negative = g.node("Relu", [g.node("Neg", ["x"])])
    zero = g.node("Sub", [g.node("Sub", [g.node("Relu", ["x"]), negative]), "x"])
    return g.save(path, g.node("Add", [centered, zero]))


def test_an_operator_that_mixes_the_batch_runs_on_one_input_at_a_time(tmp_path: Path) -> None:
    network = load(_mixing_the_batch(tmp_path / "net.onnx"))
    replay = validated(network, unit_box(network))
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    np.testing.assert_array_equal(replay.run(x), np.zeros((5, 2)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ranking", ["Softmax", "LogSoftmax", "Sigmoid"])
@pytest.mark.parametrize("size", [2, 10, 1000])
def test_the_exponential_of_the_runtime_is_as_close_as_is_counted_on(
    ranking: str, size: int, dtype: Any, tmp_path: Path
) -> None:
    """Nothing stands before the last function, so that its own error alone is compared, over all of its range."""
    g = Graph([1, size], dtype=dtype)
    network = load(g.save(tmp_path / "net.onnx", g.node(ranking, ["x"])))
    assert len(network.nodes) == 1
    rng = np.random.default_rng(size)
    scales = np.geomspace(1e-3, 100, 40)[:, None]
    spread, sweep = scales * rng.standard_normal((40, size)), np.linspace(-110, 110, 40 * size).reshape(40, size)
    far = sweep.reshape(size, 40).T  # entries of one row lie as far from each other as they can
    validated(network, np.concatenate([spread, sweep, far, far + 1000]))


@pytest.mark.parametrize("ranking", ["Softmax", "LogSoftmax", "Sigmoid"])
@pytest.mark.parametrize("target", ["INT64", "INT32", "INT8", "UINT8", "BOOL", "FLOAT16"])
def test_a_cast_behind_the_last_layer_is_refused(ranking: str, target: str, tmp_path: Path) -> None:
    g = Graph([1, 3])
    y = g.node(ranking, [g.node("Gemm", ["x", g.random(3, 3)])])
    path = g.save(tmp_path / "net.onnx", g.node("Cast", [y], to=getattr(TensorProto, target)))
    with pytest.raises(InputError, match=f"operator Cast .*{target.lower()}"):
        load(path)


@pytest.mark.parametrize("operator", ["Round", "Floor", "Sign", "Not"])
def test_steps_behind_the_last_layer_are_refused(operator: str, tmp_path: Path) -> None:
    g = Graph([1, 3])
    path = g.save(tmp_path / "net.onnx", g.node(operator, [g.node("Softmax", ["x"])]))
    with pytest.raises(InputError, match=f"operator ({operator}|Softmax) "):
        load(path)


def test_an_argmax_is_checked_on_the_shape_that_it_reads(tmp_path: Path) -> None:
    g = Graph([1, 4])
    pairs = g.node("Reshape", [g.node("Softmax", ["x"]), g.constant([2, 2], np.int64)])
    path = g.save(tmp_path / "net.onnx", g.node("ArgMax", [pairs], axis=1))
    with pytest.raises(InputError, match=r"operator ArgMax .*axis 1 .*\[2, 2\]"):
        load(path)
    g = Graph([1, 4])
    row = g.node("Reshape", [g.node("Softmax", ["x"]), g.constant([4], np.int64)])
    network = load(g.save(path, g.node("ArgMax", [row], axis=0, keepdims=0)))
    validated(network, unit_box(network))
    assert network.dropped == ("Softmax", "ArgMax")


def test_a_class_keeps_its_value(tmp_path: Path) -> None:
    for target, good in ((TensorProto.FLOAT, True), (TensorProto.INT32, True), (TensorProto.UINT8, False)):
        g = Graph([1, 300])
        y = g.node("Cast", [g.node("ArgMax", ["x"], axis=1)], to=target)
        path = g.save(tmp_path / "net.onnx", g.node("Reshape", [y, g.constant([-1], np.int64)]))
        if good:
            validated(load(path), np.random.default_rng(0).normal(size=(4, 300)))
            continue
        with pytest.raises(InputError, match=r"operator Cast .*uint8"):
            load(path)


NARROWING = {
    "Cast": "z = Cast <to: int = 1> (x)",
    "CastLike": "z = CastLike (x, w)",
    "a branch": "z = If (yes) <then_branch = p () => (float[1,2] a) { a = Cast <to: int = 1> (x) }, "
    "else_branch = q () => (float[1,2] b) { b = CastLike (x, w) }>",
}


@pytest.mark.parametrize("cast", NARROWING)
def test_a_double_model_that_goes_on_in_float32_is_compared_as_such(cast: str, tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (double[1,2] x) => (float[1,2] y) <bool yes = {1}, float[2] w = {0.1, 0.3}> { CAST  y = Mul (z, w) }"""
    path = tmp_path / "net.onnx"
    path.write_bytes(parse_model(text.replace("CAST", NARROWING[cast])).SerializeToString())
    network = load(path)
    assert not network.double
    validated(network, unit_box(network))


@pytest.mark.parametrize("like", ["x", "w"])
def test_a_double_model_that_is_cast_to_double_is_compared_in_double_precision(like: str, tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (double[1,2] x) => (double[1,2] y) <double[2] w = {0.1, 0.3}> { z = CastLike (x, LIKE)  y = Mul (z, w) }"""
    path = tmp_path / "net.onnx"
    path.write_bytes(parse_model(text.replace("LIKE", like)).SerializeToString())
    network = load(path)
    assert network.double
    validated(network, unit_box(network))


LIKE_THE_INPUT = """<ir_version: 8, opset_import: ["": 18]>
    g (KIND[1,2] x) => (KIND[1,2] y) <NUMBERS> {
        low = CastLike (a, x)  high = CastLike (b, x)  c = Clip (x, low, high)  t = CastLike (s, x)  y = Mul (c, t) }"""


@pytest.mark.parametrize("kind", ["float", "double"])
@pytest.mark.parametrize("numbers", ["float a = {0.1}, float b = {0.7}, float[2] s = {3, 0.3}",
                                     "int64 a = {-1}, int32 b = {2}, double[2] s = {0.5, -3}",
                                     "double a = {-0.25}, int8 b = {0}, bool[2] s = {1, 0}"])  # fmt: skip
def test_constants_that_are_cast_like_the_input(kind: str, numbers: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    text = LIKE_THE_INPUT.replace("KIND", kind).replace("NUMBERS", numbers)
    path.write_bytes(parse_model(text).SerializeToString())
    network = load(path)
    points = np.random.default_rng(1).uniform(-3, 3, (40, 1, 2)).astype(np.float32)
    given = points.astype(np.float32 if kind == "float" else np.float64)
    expected = np.stack([runtime(path.read_bytes(), point) for point in given])
    np.testing.assert_allclose(network.forward(points.astype(np.float64)), expected, rtol=1e-6)
    validated(network, unit_box(network))


@pytest.mark.parametrize("number", ["double a = {0.1}", "int64 a = {16777217}", "double a = {1e300}"])
def test_constants_that_float32_rounds_are_not_cast_like_the_input(number: str, tmp_path: Path) -> None:
    text = LIKE_THE_INPUT.replace("KIND", "float").replace(
        "NUMBERS", f"{number}, float b = {{9}}, float[2] s = {{1, 1}}"
    )
    path = tmp_path / "net.onnx"
    path.write_bytes(parse_model(text).SerializeToString())
    with pytest.raises(InputError, match=r"CastLike .*may round a constant"):
        load(path)


def _twice(builder: Builder, node: OnnxNode) -> Tensor:
    return builder.scale(node.tensor(0), np.float64(2.0))


def _identity(builder: Builder, node: OnnxNode) -> Tensor:
    return node.tensor(0)


@pytest.mark.parametrize("operator", ["Relu", "Neg", "Transpose"])
@pytest.mark.parametrize("altered", [_twice, _identity])
@pytest.mark.parametrize("end", [(), ("Sigmoid",), ("Softmax",), ("Softmax", "ArgMax")])
def test_a_wrong_reading_is_refused(
    operator: str, altered: Any, end: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = Graph([4, 4])
    h = g.node("Relu", [g.node("Gemm", ["x", g.random(4, 4), g.random(4)])])
    h = g.node("Neg", [g.node("Gemm", [g.node("Transpose", [h]), g.random(4, 4)])])
    h = g.node("Reshape", [h, g.constant([1, 16], np.int64)])
    for name in end:
        h = g.node(name, [h], axis=1) if name != "Sigmoid" else g.node(name, [h])
    path = g.save(tmp_path / "net.onnx", h)
    validated(load(path), unit_box(load(path)))
    monkeypatch.setitem(REWRITES, operator, altered)
    network = load(path)
    with pytest.raises(InputError, match=rf"net\.onnx: what was read is not what runs: tensor '{operator.lower()}"):
        verify(network, robustness(np.full((4, 4), 0.5), 0, "0.1", num_classes=16))


def test_what_cannot_be_loaded_or_run_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    g = Graph([1, 1, 3, 3])
    y = g.node("Conv", ["x", g.random(1, 1, 2, 2)], auto_pad="SAME_UPPER", dilations=[2, 2])
    path = g.save(tmp_path / "net.onnx", y)
    with monkeypatch.context() as patch:
        patch.setitem(REWRITES, "Conv", _identity)  # which refuses it already
        network = load(path)
    with pytest.raises(InputError, match=r"net\.onnx: ONNX Runtime cannot run it: .*Dilation") as caught:
        validated(network, unit_box(network))
    assert "\n" not in str(caught.value)
    g = Graph([1, 2])
    model = g.model(g.node("Relu", ["x"]))
    model.ir_version = 99
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"net\.onnx: ONNX Runtime cannot load it: .*IR version") as caught:
        replay_of(load(path))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def _overflowing(path: Path, factor: float) -> Path:
    """y = |x W| + relu(-factor^2 x): the product is -inf in float32 where x > 0, if the factor is 1e30."""
    g = Graph([1, 4])
    kept = g.node("Abs", [g.node("MatMul", ["x", g.random(4, 4)])])
    large = g.node("Mul", [g.node("Mul", ["x", g.constant(-factor)]), g.constant(factor)])
    return g.save(path, g.node("Add", [kept, g.node("Relu", [large])]))


@pytest.mark.parametrize("altered", [False, True])
def test_a_tensor_that_overflows_inside_of_the_set_is_refused(
    altered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ReLU behind it makes finite outputs of it, and errors as large as it is would explain any reading."""
    if altered:
        monkeypatch.setitem(REWRITES, "Abs", _identity)
    network = load(_overflowing(tmp_path / "net.onnx", 1e30))
    assert np.isfinite(replay_of(network).run(unit_box(network))).all()
    with pytest.raises(InputError, match=r"net\.onnx: tensor 'mul\d_0' \(node '.*Mul'\) is NaN or infinite"):
        validated(network, unit_box(network))


def test_tensors_that_overflow_outside_of_the_set_only_leave_these_points_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, small = _overflowing(tmp_path / "net.onnx", 1e20), np.full((2, 4), 0.001, np.float32)
    network = load(path)
    validated(network, small)
    with pytest.raises(InputError, match="NaN or infinite"):
        validated(network, 1e4 * small)
    monkeypatch.setitem(REWRITES, "Abs", _identity)
    with pytest.raises(InputError, match="what was read is not what runs"):
        validated(load(path), small)


def test_an_infinite_constant_that_never_acts_is_no_reason_to_refuse(tmp_path: Path) -> None:
    g = Graph([1, 3])
    low = g.node("Add", [g.constant([-np.inf, 0, 0]), g.constant([1.0, 2.0, 3.0])])
    network = load(g.save(tmp_path / "net.onnx", g.node("Max", ["x", low])))
    validated(network, unit_box(network))


def test_an_output_declared_with_another_size_is_refused(tmp_path: Path) -> None:
    g = Graph([1, 2])
    model = g.model(g.node("Relu", ["x"]))
    name = model.graph.output[0].name
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"declared with the shape \[1, 3\].*\[1, 2\]"):
        load(path)


def test_a_double_model_is_compared_in_double_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of 1e-9 would drown in float32's rounding errors."""
    g = Graph([1, 3])
    h = g.node("Mul", ["x", g.constant([1.0, 2.0, 3.0], np.float64)])
    model = g.model(g.node("Add", [h, g.constant([0.1, 0.2, 0.3], np.float64)]))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    validated(load(path), unit_box(load(path)))
    monkeypatch.setitem(REWRITES, "Mul", lambda b, n: b.scale(n.tensor(0), n.constant(1, "factor") * (1 + 1e-9)))
    with pytest.raises(InputError, match="not what runs"):
        validated(load(path), unit_box(load(path)))
