"""What a file may do besides stating its nodes in order: branches, sparse and quantized constants, functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx import helper, numpy_helper

from mipverify.errors import InputError
from mipverify.network import importer, load
from tests.network.graphs import Graph, agrees, runtime


def _equal(path: Path, model: Any, shape: tuple[int, ...] = (1, 2)) -> None:
    path.write_bytes(model.SerializeToString())
    x = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(load(path).forward(x[None])[0], runtime(path.read_bytes(), x), atol=1e-5)


def test_nodes_in_any_order(tmp_path: Path) -> None:
    g = Graph([1, 3])
    h = g.node("Relu", [g.node("MatMul", ["x", g.random(3, 4)])])
    y = g.node("Add", [h, g.node("Neg", [h])])
    y = g.node("Concat", [y, h], axis=1)
    for seed in range(6):
        np.random.default_rng(seed).shuffle(g.nodes)
        agrees(g, y, tmp_path / "net.onnx")


def test_a_cycle_is_refused(tmp_path: Path) -> None:
    g = Graph([1, 3])
    y = g.node("Add", ["x", "neg1_0"])
    g.node("Neg", [y])
    with pytest.raises(InputError, match="a cycle"):
        load(g.save(tmp_path / "net.onnx", y))


def test_two_producers_of_one_tensor_are_refused(tmp_path: Path) -> None:
    g = Graph([1, 3])
    y = g.node("Relu", ["x"])
    g.nodes.append(helper.make_node("Neg", ["x"], [y]))
    with pytest.raises(InputError, match="two nodes produce 'relu0_0'"):
        load(g.save(tmp_path / "net.onnx", y))


def _branches(condition: str) -> Any:
    text = """<ir_version: 10, opset_import: ["": 18]>
    g (float[1,2] x) => (float[1,2] y) <bool yes = {1}, bool no = {0}, float[2] w = {1.5, -0.5}> {
        h = Neg (x)
        shape = Shape (x)
        one = Constant <value: tensor = int64[1] {1}> ()
        first = Gather (shape, one)
        computed = Equal (first, one)
        given = ReduceMax (x)
        c = CONDITION
        y = If (c) <
            then_branch = then () => (float[1,2] t) <float[2] b = {0.25, 0.5}> {
                a = Relu (h)
                d = Mul (a, w)
                nested = If (no) <
                    then_branch = p () => (float[1,2] q) { q = Identity (d) },
                    else_branch = r () => (float[1,2] s) { s = Abs (x) }
                >
                t = Add (nested, b)
            },
            else_branch = other () => (float[1,2] e) { a = Abs (h)  e = Sub (a, w) }
        >
    }"""
    return onnx.parser.parse_model(text.replace("CONDITION", condition))


@pytest.mark.parametrize("condition", ["Identity (yes)", "Identity (no)", "Identity (computed)", "Not (computed)"])
def test_the_branch_that_is_taken(condition: str, tmp_path: Path) -> None:
    _equal(tmp_path / "net.onnx", _branches(condition))


@pytest.mark.parametrize("condition", ["yes", "no"])
def test_branches_of_constants_are_constants_to_what_follows(condition: str, tmp_path: Path) -> None:
    """A power is no piecewise linear operator: only of constants is it read."""
    text = """<ir_version: 10, opset_import: ["": 18]>
    g (float[1,2] x) => (float[1,2] y) <bool yes = {1}, bool no = {0}, float[2] w = {1.5, -0.5}, float two = {2}> {
        k = If (CONDITION) <
            then_branch = then () => (float[2] t) { t = Neg (w) },
            else_branch = other () => (float[2] e) <float[2] b = {0.25, 3}> { e = Add (w, b) }
        >
        squares = Pow (k, two)
        y = Mul (x, squares)
    }"""
    _equal(tmp_path / "net.onnx", onnx.parser.parse_model(text.replace("CONDITION", condition)))


def test_a_condition_on_the_input_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(_branches("Cast <to: int = 9> (given)").SerializeToString())
    with pytest.raises(InputError, match=r"operator (Cast|If) "):
        load(path)


def test_what_is_wrong_in_a_branch_is_named(tmp_path: Path) -> None:
    model = _branches("Identity (yes)")
    model.graph.node[7].attribute[0].g.node[0].op_type = "Sin"
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"operator If .*Sin \(node 'a'\): not supported"):
        load(tmp_path / "net.onnx")


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_initializers(flat: bool, tmp_path: Path) -> None:
    g = Graph([1, 2])
    model = g.model(g.node("Relu", [g.node("MatMul", ["x", "w"])]))
    places = np.array([1, 3, 4]) if flat else np.array([[0, 1], [1, 0], [1, 1]])
    values = numpy_helper.from_array(np.array([0.5, -2, 3], np.float32), "w")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, numpy_helper.from_array(places), [2, 3]))
    _equal(tmp_path / "net.onnx", model)


def test_sparse_constants(tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.array([0.5, -2], np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1, 2])), [2, 2])
    g = Graph([1, 2])
    agrees(g, g.node("MatMul", ["x", g.node("Constant", [], sparse_value=sparse)]), tmp_path / "net.onnx")


def test_a_damaged_sparse_initializer_is_refused(tmp_path: Path) -> None:
    g = Graph([1, 2])
    for places, shape in (([0, 9], [2, 3]), ([0], [2, 3]), ([0, 1], [-2, 3]), ([0, 1], [2**40, 3])):
        model = g.model("w")
        values = numpy_helper.from_array(np.array([0.5, -2], np.float32), "w")
        sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array(places)), [2, 3])
        sparse.dims[:] = shape
        model.graph.sparse_initializer.append(sparse)
        (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(InputError, match="initializer 'w'"):
            load(tmp_path / "net.onnx")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_dequantized_constants(dtype: Any, axis: int | None, tmp_path: Path) -> None:
    g = Graph([1, 2, 5], opset=21)
    info = np.iinfo(dtype)
    weights = g.constant(g.rng.integers(max(info.min, -(2**28)), min(info.max, 2**28), size=(3, 2, 2)), dtype)
    count = () if axis is None else (3 - axis,)
    zero = "" if dtype == np.int32 else g.constant(g.rng.integers(0, 5, size=count), dtype)
    options = {} if axis is None else {"axis": axis}
    scale = g.constant(g.rng.uniform(0.001, 0.01, size=count) / 2.0 ** (8 * np.dtype(dtype).itemsize - 8))
    w = g.node("DequantizeLinear", [weights, scale, zero], **options)
    agrees(g, g.node("Conv", ["x", w]), tmp_path / "net.onnx")


def test_blocks_of_dequantized_constants(tmp_path: Path) -> None:
    g = Graph([1, 2, 5], opset=21)
    weights, zero = (
        g.constant(g.rng.integers(-9, 9, (2, 5)), np.int8),
        g.constant(g.rng.integers(-2, 2, (2, 3)), np.int8),
    )
    scale = g.constant(g.rng.uniform(0.1, 1, (2, 3)))
    w = g.node("DequantizeLinear", [weights, scale, zero], axis=1, block_size=2)
    agrees(g, g.node("Add", ["x", w]), tmp_path / "net.onnx")


@pytest.mark.parametrize("via", ["MatMul", "Gemm", "Transpose"])
def test_products_with_8_bit_weights_are_refused(via: str, tmp_path: Path) -> None:
    """ONNX Runtime quantizes the other factor, too."""
    g = Graph([1, 2])
    w = g.node("DequantizeLinear", [g.constant([[1, 2], [-3, 5]], np.int8), g.constant(0.1)])
    w = g.node("Transpose", [w]) if via == "Transpose" else w
    y = g.node("Gemm" if via == "Gemm" else "MatMul", ["x", w])
    with pytest.raises(InputError, match="quantized networks"):
        load(g.save(tmp_path / "net.onnx", y))


def test_constants_stored_in_half_precision(tmp_path: Path) -> None:
    """Weights are compressed like that: float16 in the file, cast to float32 before they are used."""
    g = Graph([1, 2])
    half = g.constant(g.rng.normal(size=(2, 3)), np.float16)
    scaled = g.node("Mul", [half, g.constant(0.3, np.float16)])
    w = g.node("Add", [g.node("Cast", [name], to=onnx.TensorProto.FLOAT) for name in (half, scaled)])
    agrees(g, g.node("MatMul", ["x", w]), tmp_path / "net.onnx")


HUGE: dict[str, Callable[[Graph], Any]] = {
    "Range": lambda g: g.node(
        "Range", [g.constant(0, np.int64), g.constant(10**12, np.int64), g.constant(1, np.int64)]
    ),
    "Expand": lambda g: g.node("Expand", [g.constant([1.0]), g.constant([10**6, 10**6], np.int64)]),
    "Tile": lambda g: g.node("Tile", [g.constant([1.0]), g.constant([10**12], np.int64)]),
    "Pad": lambda g: g.node("Pad", [g.constant([1.0]), g.constant([0, 10**12], np.int64)]),
    "Add": lambda g: g.node("Add", [g.constant(np.ones((9000, 1))), g.constant(np.ones((1, 9000)))]),
    "MatMul": lambda g: g.node("MatMul", [g.constant(np.ones((9000, 1))), g.constant(np.ones((1, 9000)))]),
    "OneHot": lambda g: g.node("OneHot", [g.constant([1]), g.constant(10**12, np.int64), g.constant([0.0, 1.0])]),
}


@pytest.mark.parametrize("operator", HUGE)
def test_constants_of_any_size_are_not_tried(operator: str, tmp_path: Path) -> None:
    g = Graph([1, 2])
    huge = HUGE[operator](g)
    y = g.node("Add", ["x", g.node("Cast", [g.node("ReduceMax", [huge], keepdims=0)], to=onnx.TensorProto.FLOAT)])
    with pytest.raises(InputError, match=f"operator {operator} .*too large"):
        load(g.save(tmp_path / "net.onnx", y))


FUNCTION = """<ir_version: 9, opset_import: ["": 17, "own": 1]>
g (float[1,2] x) => (float[1,2] y) { %s }
<domain: "own", opset_import: ["": 17]> F (a) => (b) { b = Relu (a) }
<domain: "own", opset_import: ["": 17]> Relu (a) => (b) { b = Neg (a) }
<domain: "%s", opset_import: ["": 17]> Relu (a) => (b) { b = Neg (a) }"""


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
@pytest.mark.parametrize("body", ["y = Relu (x)", "y = own.F (x)", "h = own.Relu (x) y = Relu (h)"])
def test_functions_never_stand_in_for_built_in_operators(body: str, domain: str, tmp_path: Path) -> None:
    _equal(tmp_path / "net.onnx", onnx.parser.parse_model(FUNCTION % (body, domain)))


def test_a_function_in_the_name_of_a_foreign_operator_is_not_called(tmp_path: Path) -> None:
    """ONNX Runtime has com.microsoft.Gelu itself."""
    text = """<ir_version: 9, opset_import: ["": 17, "com.microsoft": 1]>
    g (float[1,2] x) => (float[1,2] y) { y = com.microsoft.Gelu (x) }
    <domain: "com.microsoft", opset_import: ["": 17]> Gelu (a) => (b) { b = Neg (a) }"""
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    with pytest.raises(InputError, match=r"Gelu.*com\.microsoft"):
        load(path)


@pytest.mark.parametrize("version", [11, 13, 21])
def test_functions_are_read_in_the_opset_of_the_file(version: int, tmp_path: Path) -> None:
    """As ONNX Runtime does."""
    text = """<ir_version: 9, opset_import: ["": 17, "own": 1]>
    g (float[1,2] x) => (float[1,2] y) { h = own.F (x) y = Relu (h) }
    <domain: "own", opset_import: ["": %d]> F (a) => (b) { c = Relu (a) b = Flatten <axis = 1> (c) }"""
    _equal(tmp_path / "net.onnx", onnx.parser.parse_model(text % version))


DEFAULTS = """<ir_version: 8, opset_import: ["": 17, "own": 1]>
    g (float[1,4] x) => (float[1,4] y) <bool yes = {1}> { BODY }
    <domain: "own", opset_import: ["": 17]> Leak <a: float = 0.5> (p) => (q) { q = LeakyRelu <alpha: float = @a> (p) }
    <domain: "own", opset_import: ["": 17, "own": 1]> Twice <b: float = 0.25> (p) => (q) {
        r = own.Leak <a: float = @b> (p)  q = own.Leak (r) }"""


@pytest.mark.parametrize(
    "body",
    [
        "y = own.Leak (x)",
        "y = own.Leak <a = 0.3> (x)",
        "y = own.Twice (x)",
        "z = own.Twice <b = 2.0> (x)  y = own.Leak (z)",
        "y = If (yes) <then_branch = t () => (float[1,4] a) { a = own.Leak (x) }, "
        "else_branch = e () => (float[1,4] b) { b = Neg (x) }>",
    ],
)
def test_attributes_of_functions_have_defaults(body: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx.parser.parse_model(DEFAULTS.replace("BODY", body)).SerializeToString())
    network = load(path)
    x = np.array([[1.0, -1.0, -3.0, 0.5]], np.float32)
    np.testing.assert_allclose(network.forward(x[None])[0], runtime(path.read_bytes(), x), rtol=1e-6)


def test_functions_that_call_themselves_are_refused(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["": 17, "own": 1]>
    g (float[1,2] x) => (float[1,2] y) { y = own.F (x) }
    <domain: "own", opset_import: ["": 17, "own": 1]> F (a) => (b) { b = own.F (a) }"""
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    with pytest.raises(InputError, match="functions cannot be put in place of their calls: Cycle"):
        load(path)


def test_what_the_runtime_says_is_told_without_its_codes(tmp_path: Path) -> None:
    g = Graph([1, 4])
    path = g.save(tmp_path / "net.onnx", g.node("Expand", ["x", g.constant([-1, 4], np.int64)]))
    with pytest.raises(InputError, match=r"Expand \(node .*do not fit: Non-zero") as caught:
        load(path)
    assert "ONNXRuntimeError" not in str(caught.value)
    assert "onnxruntime_src" not in str(caught.value)


MALFORMED: dict[str, tuple[str, dict[str, Any]]] = {
    "a stride of zero": ("MaxPool", {"kernel_shape": [2, 2], "strides": [0, 1]}),
    "an axis that does not exist": ("Concat", {"axis": 7}),
    "an attribute of another type": ("Flatten", {"axis": "one"}),
    "a permutation of other axes": ("Transpose", {"perm": [0, 1, 1, 2]}),
    "a kernel of letters": ("AveragePool", {"kernel_shape": ["a", "b"]}),
    "two numbers for one": ("LeakyRelu", {"alpha": [0.1, 0.2]}),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_node_is_refused(name: str, tmp_path: Path) -> None:
    operator, options = MALFORMED[name]
    g = Graph([1, 1, 3, 3])
    with pytest.raises(InputError, match=f"operator {operator} "):
        load(g.save(tmp_path / "net.onnx", g.node(operator, ["x"], **options)))


def test_a_fault_of_ours_is_no_bad_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A node that ONNX Runtime runs and a rewrite fails on is not called malformed."""

    def broken(builder: Any, node: Any) -> Callable[[], None]:
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setitem(importer.REWRITES, "Relu", broken)
    g = Graph([1, 3])
    with pytest.raises(ValueError, match="broadcast") as caught:
        load(g.save(tmp_path / "net.onnx", g.node("Relu", ["x"])))
    assert not isinstance(caught.value, InputError)
