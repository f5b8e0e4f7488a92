"""Choices that jump are read where the input set decides them, and nowhere else; against enumeration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import mipverify
from mipverify.engine.query import load_query
from mipverify.errors import InputError

HEAD = "(vnnlib-version <2.0>)\n(declare-network N (declare-input X float32 [2]) (declare-output Y {} [2]))\n"


def save(path: Path, nodes, weights=(), element: int = TensorProto.FLOAT) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", element, [2])],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def choice(path: Path, operator: str = "Greater") -> Path:
    """y = where(relu(2 x) compared with 1, x, 10): it jumps at x = 0.5."""
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["twice"]),
        helper.make_node("Relu", ["twice"], ["positive"]),
        helper.make_node(operator, ["positive", "one"], ["answer"]),
        helper.make_node("Where", ["answer", "x", "ten"], ["y"]),
    ]
    return save(path, nodes, [("two", 2), ("one", 1), ("ten", 10)])


def cast(path: Path, to: int, back: bool = True) -> Path:
    """y = x + 0.5 as another type, and back as a float."""
    nodes = [helper.make_node("Add", ["x", "half"], ["moved"])]
    nodes.append(helper.make_node("Cast", ["moved"], ["other" if back else "y"], to=to))
    if back:
        nodes.append(helper.make_node("Cast", ["other"], ["y"], to=TensorProto.FLOAT))
    return save(path, nodes, [("half", 0.5)], TensorProto.FLOAT if back else to)


def query(path: Path, low: float, high: float, condition: str, kind: str = "float32") -> Path:
    bounds = "".join(f"(assert (>= X[{k}] {float(low)}))\n(assert (<= X[{k}] {float(high)}))\n" for k in range(2))
    path.write_text(HEAD.format(kind) + bounds + f"(assert {condition})\n")
    return path


def ask(network: Path, prop: Path):
    loaded, specification = load_query(prop, network)
    return mipverify.verify(loaded, specification, timeout=20, workers=1)


@pytest.mark.parametrize("operator", ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
@pytest.mark.parametrize(("low", "high"), [(0.75, 2.0), (-1.0, 0.25)])
def test_a_comparison_that_the_set_decides(operator, low, high, tmp_path):
    network = choice(tmp_path / "net.onnx", operator)
    session = onnxruntime.InferenceSession(str(network))
    values = [session.run(None, {"x": np.full(2, t, np.float32)})[0][0] for t in np.linspace(low, high, 101)]
    for threshold, expected in ((max(values) + 0.01, "holds"), (max(values) - 0.01, "violated")):
        verdict = ask(network, query(tmp_path / "q.vnnlib", low, high, f"(>= Y[0] {threshold:.4f})"))
        assert verdict.verdict == expected
        if verdict.witness is not None:
            again = session.run(None, {"x": verdict.witness.input.astype(np.float32)})[0]
            assert np.array_equal(again, verdict.witness.output)


def test_a_comparison_that_rounding_may_turn_is_refused(tmp_path):
    """(x + 2^24) - 2^24 > 0.25 holds for all reals x >= 0.5, and for no float32 between 0.5 and 0.9."""
    nodes = [
        helper.make_node("Add", ["x", "large"], ["far"]),
        helper.make_node("Sub", ["far", "large"], ["back"]),
        helper.make_node("Greater", ["back", "quarter"], ["answer"]),
        helper.make_node("Where", ["answer", "x", "ten"], ["y"]),
    ]
    network = save(tmp_path / "net.onnx", nodes, [("large", 2.0**24), ("quarter", 0.25), ("ten", 10)])
    session = onnxruntime.InferenceSession(str(network))
    assert session.run(None, {"x": np.full(2, 0.75, np.float32)})[0][0] == 10
    with pytest.raises(InputError):
        ask(network, query(tmp_path / "q.vnnlib", 0.5, 0.9, "(>= Y[0] 9.0)"))


def test_a_comparison_closer_than_rounding_errors_is_refused(tmp_path):
    """x + 0.1 > t for all reals x >= 0.5, by less than what a float32 sum may be off by."""
    nodes = [
        helper.make_node("Add", ["x", "tenth"], ["moved"]),
        helper.make_node("Greater", ["moved", "threshold"], ["answer"]),
        helper.make_node("Where", ["answer", "x", "ten"], ["y"]),
    ]
    threshold = np.nextafter(np.float32(0.6), np.float32(0))
    assert 0 < 0.5 + float(np.float32(0.1)) - float(threshold) < 6e-8
    network = save(tmp_path / "net.onnx", nodes, [("tenth", 0.1), ("threshold", threshold), ("ten", 10)])
    with pytest.raises(InputError, match="where the comparison turns"):
        ask(network, query(tmp_path / "q.vnnlib", 0.5, 0.9, "(>= Y[0] 9.0)"))
    assert ask(network, query(tmp_path / "q.vnnlib", 0.50001, 0.9, "(>= Y[0] 9.0)")).verdict == "holds"


def test_a_comparison_of_the_input_itself_is_exact(tmp_path):
    nodes = [
        helper.make_node("GreaterOrEqual", ["x", "one"], ["answer"]),
        helper.make_node("Where", ["answer", "x", "ten"], ["y"]),
    ]
    network = save(tmp_path / "net.onnx", nodes, [("one", 1), ("ten", 10)])
    assert ask(network, query(tmp_path / "q.vnnlib", 1.0000002, 2.0, "(>= Y[0] 2.5)")).verdict == "holds"


def test_a_comparison_that_the_set_leaves_open_is_refused(tmp_path):
    network = choice(tmp_path / "net.onnx")
    for low, high in ((0.4, 0.6), (0.0, 0.5001), (0.4999, 1.0)):
        with pytest.raises(InputError, match="where the comparison turns"):
            ask(network, query(tmp_path / "q.vnnlib", low, high, "(>= Y[0] 11.0)"))
    with pytest.raises(InputError, match="where the comparison turns"):
        mipverify.load(str(network))


@pytest.mark.parametrize(
    ("low", "high", "value"), [(1.75, 2.25, 2.0), (-0.25, 0.25, 0.0), (-1.25, 0.25, 0.0), (-3.25, -2.75, -2.0)]
)
def test_casts_to_whole_numbers_cut_towards_zero(low, high, value, tmp_path):
    for back in (True, False):
        network = cast(tmp_path / "net.onnx", TensorProto.INT64, back)
        kind, number = ("float32", f"{value:.1f}") if back else ("int64", f"{value:.0f}")
        condition = f"(<= Y[0] {number})"
        assert ask(network, query(tmp_path / "q.vnnlib", low, high, condition, kind)).verdict == "violated"
        condition = f"(!= Y[1] {number})"
        assert ask(network, query(tmp_path / "q.vnnlib", low, high, condition, kind)).verdict == "holds"


@pytest.mark.parametrize(("low", "high"), [(1.25, 1.75), (-1.75, 0.25), (-2.0, 2.0)])
def test_casts_that_change_within_the_set_are_refused(low, high, tmp_path):
    network = cast(tmp_path / "net.onnx", TensorProto.INT64)
    with pytest.raises(InputError, match="cast to int64"):
        ask(network, query(tmp_path / "q.vnnlib", low, high, "(>= Y[0] 9.0)"))


def test_truth_values_and_equality(tmp_path):
    truth = cast(tmp_path / "bool.onnx", TensorProto.BOOL)
    assert ask(truth, query(tmp_path / "q.vnnlib", 0.0, 1.0, "(!= Y[0] 1.0)")).verdict == "holds"
    with pytest.raises(InputError, match="cast to bool"):
        ask(truth, query(tmp_path / "q.vnnlib", -0.75, 0.0, "(!= Y[0] 0.0)"))
    nodes = [
        helper.make_node("Equal", ["x", "zero"], ["same"]),
        helper.make_node("Cast", ["same"], ["y"], to=TensorProto.FLOAT),
    ]
    equal = save(tmp_path / "equal.onnx", nodes, [("zero", 0)])
    assert ask(equal, query(tmp_path / "q.vnnlib", 0.0, 0.0, "(!= Y[0] 1.0)")).verdict == "holds"
    assert ask(equal, query(tmp_path / "q.vnnlib", 0.25, 2.0, "(!= Y[0] 0.0)")).verdict == "holds"
    with pytest.raises(InputError, match="Equal"):
        ask(equal, query(tmp_path / "q.vnnlib", 0.0, 2.0, "(!= Y[0] 0.0)"))


def test_a_network_of_a_smaller_set_is_not_asked_about_a_larger_one(tmp_path):
    network = choice(tmp_path / "net.onnx")
    loaded, _ = load_query(query(tmp_path / "q.vnnlib", 0.75, 1.0, "(>= Y[0] 9.0)"), network)
    wider = mipverify.load_vnnlib(query(tmp_path / "w.vnnlib", 0.0, 1.0, "(>= Y[0] 9.0)"))
    with pytest.raises(InputError, match="decided for a smaller input set"):
        mipverify.verify(loaded, wider)
    with pytest.raises(InputError, match="decided for a smaller input set"):
        mipverify.minimum_distortion(loaded, np.full(2, 0.8, np.float32), 0, norm="linf", domain=(0, 1))


def test_a_sample_of_a_batch_whose_ball_leaves_the_set_is_refused(tmp_path):
    """Its clean input is inside, and a point of its ball at which the file says 10 is not."""
    prop = query(tmp_path / "q.vnnlib", 0.6, 1.0, "(>= Y[0] 3.0)")
    network, _ = load_query(prop, choice(tmp_path / "net.onnx"))
    images, labels = np.array([[0.9, 0.75], [0.88, 0.605]], np.float32), np.array([0, 0])
    with pytest.raises(InputError, match="smaller input set"):
        mipverify.adversarial_accuracy(network, images, labels, eps=0.12, workers=0)
    inside = mipverify.adversarial_accuracy(network, images[:1], labels[:1], eps=0.05, workers=0)
    assert [sample.verdict for sample in inside.samples] == ["holds"]


def test_families_of_inputs_do_not_know_what_their_image_leaves_open(tmp_path):
    prop = query(tmp_path / "q.vnnlib", 0.6, 1.0, "(>= Y[0] 3.0)")
    network, _ = load_query(prop, choice(tmp_path / "net.onnx"))
    with pytest.raises(InputError, match="decided for one input set"):
        mipverify.mixture(np.array([[0.9, 0.7]]), np.array([[0.8, 0.62]])).verify(network, 0)


def test_declared_whole_numbers_are_those_of_the_file(tmp_path):
    network = cast(tmp_path / "net.onnx", TensorProto.INT64, back=False)
    with pytest.raises(InputError, match=r"as int32, that of .* is int64"):
        ask(network, query(tmp_path / "q.vnnlib", 1.75, 2.25, "(<= Y[0] 2)", "int32"))


@pytest.mark.parametrize("version", [1, 2])
def test_inputs_without_bounds(version, tmp_path):
    """A counterexample is one; what holds in a part of the set is not said to hold."""
    network = save(tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])])
    prop = tmp_path / "q.vnnlib"
    for threshold, expected in (("3.0", "violated"), ("-1.0", "unknown")):
        sign = ">=" if expected == "violated" else "<="
        if version == 2:
            prop.write_text(HEAD.format("float32") + f"(assert (>= X[1] 2.0))\n(assert ({sign} Y[1] {threshold}))\n")
        else:
            names = "".join(f"(declare-const {v}_{k} Real)\n" for v in "XY" for k in range(2))
            prop.write_text(names + f"(assert (>= X_1 2.0))\n(assert ({sign} Y_1 {threshold}))\n")
        verdict = ask(network, prop)
        assert verdict.verdict == expected
        assert ("have no bounds" in verdict.reason) == (expected == "unknown")
        with pytest.raises(InputError, match="no lower bound"):
            mipverify.load_vnnlib(prop)
