"""Properties of VNN-LIB 2 about several networks, inputs, outputs and hidden tensors, against brute force."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import mipverify
from mipverify.engine.query import assignment, load_query
from mipverify.errors import InputError

HEAD = "(vnnlib-version <2.0>)\n"


def save(path: Path, nodes, inputs, outputs, weights, opset: int = 13, element: int = TensorProto.FLOAT) -> Path:
    """An ONNX file; inputs and outputs: shapes by name, weights: arrays by name."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, element, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, element, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def layer(path: Path, seed: int, **more) -> Path:
    """y = relu(x W1 + b) W2 of 2 inputs and 2 outputs; the tensor before the ReLU is called `before`."""
    random = np.random.default_rng(seed)
    weights = {
        "w1": random.normal(size=(2, 4)).astype(np.float32),
        "b": random.normal(size=4).astype(np.float32),
        "w2": random.normal(size=(4, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["before"]),
        helper.make_node("Relu", ["before"], ["after"]),
        helper.make_node("MatMul", ["after", "w2"], ["y"]),
    ]
    return save(path, nodes, {"x": [1, 2]}, {"y": [1, 2]}, weights, **more)


def two_of_each(path: Path) -> Path:
    """From p (2,) and q (1, 3): the outputs `d` (2,) = p - q[:, :2] and `s` = relu(sum of all)."""
    nodes = [
        helper.make_node("Slice", ["q", "zero", "two", "one"], ["cut"]),
        helper.make_node("Reshape", ["cut", "flat"], ["flattened"]),
        helper.make_node("Sub", ["p", "flattened"], ["d"]),
        helper.make_node("ReduceSum", ["p"], ["a"], keepdims=0),
        helper.make_node("ReduceSum", ["q"], ["c"], keepdims=0),
        helper.make_node("Add", ["a", "c"], ["total"]),
        helper.make_node("Relu", ["total"], ["s"]),
    ]
    numbers = {"zero": [0], "two": [2], "one": [1], "flat": [-1]}
    weights = {name: np.array(value, np.int64) for name, value in numbers.items()}
    return save(path, nodes, {"p": [2], "q": [1, 3]}, {"d": [2], "s": []}, weights)


def box(variable: str, shape: tuple[int, ...], low: float, high: float) -> str:
    text = ""
    for index in np.ndindex(*shape):
        at = f"{variable}[{','.join(map(str, index))}]"
        text += f"(assert (>= {at} {float(low)}))\n(assert (<= {at} {float(high)}))\n"
    return text


def ask(tmp_path: Path, text: str, networks) -> tuple[str, str]:
    """The verdict, and the assignment of a counterexample."""
    path = tmp_path / "query.vnnlib"
    path.write_text(HEAD + text)
    network, specification = load_query(path, networks)
    verdict = mipverify.verify(network, specification, timeout=30, workers=1)
    if verdict.witness is None:
        return verdict.verdict, ""
    return verdict.verdict, assignment(specification, network, verdict.witness.input, verdict.witness.stated)


def values(text: str) -> dict[str, np.ndarray]:
    """An assignment as arrays by variable."""
    found: dict[str, np.ndarray] = {}
    lines = text.splitlines()
    while lines:
        name, _, shape = lines.pop(0).split(" ", 2)
        sizes = [int(size) for size in shape.strip("[]").split(",") if size]
        count = int(np.prod(sizes, dtype=int))
        found[name] = np.array([float(lines.pop(0)) for _ in range(count)]).reshape(sizes)
    return found


def run(path: Path, **fed) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {name: np.asarray(value, np.float32) for name, value in fed.items()})


TWO = "(declare-network f (declare-input X float32 [1,2]) (declare-output Y float32 [1,2]))\n"
TWO += "(declare-network g {}(declare-input U float32 [1,2]) (declare-output V float32 [1,2]))\n"
SAME_INPUT = "".join(f"(assert (== X[0,{k}] U[0,{k}]))\n" for k in range(2))


def worst_difference(tmp_path: Path, first: Path, second: Path) -> float:
    axis = np.linspace(-1, 1, 101)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 1, 2).astype(np.float32)
    tops = []
    for path in (first, second):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        tops.append(np.array([session.run(None, {"x": point})[0][0, 0] for point in grid]))
    return float((tops[0] - tops[1]).max())


def test_two_networks_on_the_same_input(tmp_path):
    f, g = layer(tmp_path / "f.onnx", 1), layer(tmp_path / "g.onnx", 2)
    worst = worst_difference(tmp_path, f, g)
    text = TWO.format("(isomorphic-to f) ") + box("X", (1, 2), -1, 1) + box("U", (1, 2), -1, 1) + SAME_INPUT
    for threshold, expected in ((worst - 0.05, "violated"), (worst + 0.5, "holds")):
        condition = f"(assert (>= Y[0,0] (+ V[0,0] {threshold:.6f})))"
        verdict, found = ask(tmp_path, text + condition, {"f": f, "g": g})
        assert verdict == expected
        if found:
            point = values(found)
            assert np.array_equal(point["X"], point["U"])
            assert np.array_equal(run(f, x=point["X"])[0], point["Y"].astype(np.float32))
            assert point["Y"][0, 0] >= point["V"][0, 0] + threshold


def test_equal_networks_need_one_file_and_differ_by_their_inputs_alone(tmp_path):
    f = layer(tmp_path / "f.onnx", 3)
    text = TWO.format("(equal-to f) ") + box("X", (1, 2), -1, 1) + box("U", (1, 2), -1, 1)
    condition = "(assert (>= Y[0,0] (+ V[0,0] 0.001)))"
    assert ask(tmp_path, text + SAME_INPUT + condition, {"f": f})[0] == "holds"
    assert ask(tmp_path, text + condition, f)[0] == "violated"
    with pytest.raises(InputError, match="equals f, but has a file of its own"):
        ask(tmp_path, text + condition, {"f": f, "g": layer(tmp_path / "g.onnx", 4)})


def test_several_inputs_and_outputs_in_the_order_of_the_file(tmp_path):
    network = two_of_each(tmp_path / "two.onnx")
    text = "(declare-network N (declare-input A float32 [2]) (declare-input B float32 [1,3])\n"
    text += "  (declare-output D float32 [2]) (declare-output S float32 []))\n"
    text += box("A", (2,), 0, 1) + box("B", (1, 3), 10, 11)
    for condition, expected in (
        ("(assert (>= D[0] -8.9))", "holds"),
        ("(assert (<= D[1] -10.9))", "violated"),
        ("(assert (and (>= S 34.9) (<= D[0] -9.5)))", "violated"),
        ("(assert (and (>= S 34.9) (<= D[0] -10.5)))", "holds"),
        ("(assert (or (<= S 29.9) (>= D[1] -8.9)))", "holds"),
    ):
        verdict, found = ask(tmp_path, text + condition, network)
        assert verdict == expected, condition
        if found:
            point = values(found)
            d, s = run(network, p=point["A"], q=point["B"])
            assert np.array_equal(d, point["D"].astype(np.float32))
            assert s == point["S"].astype(np.float32)


def test_hidden_tensors(tmp_path):
    network = layer(tmp_path / "f.onnx", 5)
    text = '(declare-network N (declare-input X float32 [1,2]) (declare-hidden H float32 [1,4] "before")\n'
    text += "  (declare-output Y float32 [1,2]))\n" + box("X", (1, 2), -1, 1)
    axis = np.linspace(-1, 1, 41)
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(network).graph.initializer}
    before = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2) @ weights["w1"] + weights["b"]
    top = float(before[:, 1].max())
    assert ask(tmp_path, text + f"(assert (>= H[0,1] {top + 0.01:.4f}))", network)[0] == "holds"
    verdict, found = ask(tmp_path, text + f"(assert (>= H[0,1] {top - 0.01:.4f}))", network)
    assert verdict == "violated"
    point = values(found)
    assert np.allclose(point["H"], point["X"] @ weights["w1"] + weights["b"], atol=1e-5)


def test_a_hidden_tensor_may_be_an_output(tmp_path):
    network = layer(tmp_path / "f.onnx", 5)
    text = '(declare-network N (declare-input X float32 [1,2]) (declare-hidden H float32 [1,2] "y")\n'
    text += "  (declare-output Y float32 [1,2]))\n" + box("X", (1, 2), -1, 1)
    assert ask(tmp_path, text + "(assert (!= H[0,1] Y[0,1]))", network)[0] == "holds"
    verdict, found = ask(tmp_path, text + "(assert (<= H[0,1] Y[0,1]))", network)
    assert verdict == "violated"
    assert np.array_equal(values(found)["H"], values(found)["Y"])


def test_inputs_alone(tmp_path):
    network = layer(tmp_path / "f.onnx", 6)
    text = "(declare-network N (declare-input X float32 [1,2]) (declare-output Y float32 [1,2]))\n"
    text += box("X", (1, 2), 0, 1)
    assert ask(tmp_path, text + "(assert (>= (+ X[0,0] (* 2.0 X[0,1])) 3.001))", network)[0] == "holds"
    assert ask(tmp_path, text + "(assert (>= (+ X[0,0] (* 2.0 X[0,1])) 2.999))", network)[0] == "violated"
    assert ask(tmp_path, text, network)[0] == "violated"


Make = Callable[[Path], object]
WRONG: dict[str, tuple[str, Make, str]] = {
    "no file": (TWO.format(""), lambda p: {"f": layer(p / "f.onnx", 1)}, "no file is given for network g"),
    "one file for two": (TWO.format(""), lambda p: layer(p / "f.onnx", 1), r"about 2 networks \(f, g\)"),
    "unknown name": (TWO.format("(equal-to f) "), lambda p: {"h": layer(p / "f.onnx", 1)}, "has no network 'h'"),
    "other opset": (
        TWO.format(""),
        lambda p: {"f": layer(p / "f.onnx", 1), "g": layer(p / "g.onnx", 1, opset=17)},
        "f and g use different opsets, 13 and 17",
    ),
    "inputs": (TWO.format(""), lambda p: {"f": two_of_each(p / "f.onnx"), "g": layer(p / "g.onnx", 1)}, "has 1 inputs"),
    "shape": (
        TWO.format("").replace("U float32 [1,2]", "U float32 [1,3]"),
        lambda p: {"f": layer(p / "f.onnx", 1), "g": layer(p / "g.onnx", 1)},
        r"U is declared as \[1, 3\], the network takes \[1, 2\]",
    ),
    "type": (
        TWO.format("").replace("U float32 [1,2]", "U float64 [1,2]"),
        lambda p: {"f": layer(p / "f.onnx", 1), "g": layer(p / "g.onnx", 1)},
        "declares its input U as float64, the network's is float32",
    ),
    "output shape": (
        TWO.format("").replace("V float32 [1,2]", "V float32 [1,3]"),
        lambda p: {"f": layer(p / "f.onnx", 1), "g": layer(p / "g.onnx", 1)},
        r"V of network g is declared as \[1, 3\]",
    ),
    "hidden": (
        TWO.format("").replace("(declare-output V", '(declare-hidden H float32 [1,4] "no") (declare-output V'),
        lambda p: {"f": layer(p / "f.onnx", 1), "g": layer(p / "g.onnx", 1)},
        "has no tensor 'no', which H stands for",
    ),
}


@pytest.mark.parametrize(("text", "make", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_named(tmp_path, text, make, message):
    sizes = 3 if "U float32 [1,3]" in text else 2
    bounds = box("X", (1, 2), 0, 1) + box("U", (1, sizes), 0, 1)
    with pytest.raises(InputError, match=message) as error:
        ask(tmp_path, text + bounds + "(assert (>= Y[0,0] V[0,0]))", make(tmp_path))
    assert "\n" not in str(error.value)


def test_a_plain_network_is_not_asked_about_several(tmp_path):
    path = tmp_path / "query.vnnlib"
    path.write_text(HEAD + TWO.format("") + box("X", (1, 2), 0, 1) + box("U", (1, 2), 0, 1))
    with pytest.raises(InputError, match=r"\(f, g\)"):
        mipverify.verify(mipverify.load(str(layer(tmp_path / "f.onnx", 1))), mipverify.load_vnnlib(path))
