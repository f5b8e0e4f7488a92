"""A strict condition is excluded by a bound that is met with equality, and only where that excludes it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mipverify
from mipverify.network import Network
from mipverify.specification import Box, Case, Condition, Specification
from mipverify.specification.conditions import Row

WEIGHT = np.array([[0.12573022, -0.7], [-0.13210486, 0.3]], np.float32)
# Ends of a network whose hidden layer is WEIGHT, and the sign that both of their outputs never have.
ENDS = {
    "relu": ([("Relu", ["h"], {})], "<"),
    "negated relu": ([("Relu", ["h"], {}), ("Neg", ["1"], {})], ">"),
    "sum of relus": ([("Relu", ["h"], {}), ("MatMul", ["1", "positive"], {})], "<"),
    "convolution of relus": (
        [("Relu", ["h"], {}), ("Reshape", ["1", "image"], {}), ("Conv", ["2", "kernel"], {}), ("Flatten", ["3"], {})],
        "<",
    ),
    "absolute value": ([("Abs", ["h"], {})], "<"),
    "pooled relus": ([("Relu", ["h"], {}), ("Neg", ["1"], {}), ("Concat", ["2", "2"], {"axis": 1})], ">"),
}
CONSTANTS = {
    "w": WEIGHT,
    "positive": np.array([[0.1, 0.0], [0.7, 3.0]], np.float32),
    "image": np.array([1, 1, 1, 2]),
    "kernel": np.array([[[[0.3, 0.1]]]], np.float32),
}


def network(folder: Path, end: str) -> Network:
    steps = ENDS[end][0]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"])]
    nodes += [helper.make_node(op, given, [str(i + 1)], **more) for i, (op, given, more) in enumerate(steps)]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    return mipverify.load(folder / "net.onnx")


def asked(net: Network, *rows: tuple[dict[int, object], object, bool]) -> Specification:
    """Violated where all rows (coefficients, offset, strict) are met, inputs from -1 to 1."""
    made = [Row({i: Fraction(c) for i, c in terms.items()}, {}, Fraction(b), strict) for terms, b, strict in rows]
    box = Box.from_exact([Fraction(-1)] * 2, [Fraction(1)] * 2)
    return Specification((Case(box, (Condition.from_rows(made, 2, net.output_size),)),), "vnnlib")


@pytest.mark.parametrize("end", ENDS)
def test_never_beyond_zero(tmp_path: Path, end: str) -> None:
    net, sign = network(tmp_path, end), 1 if ENDS[end][1] == "<" else -1
    strict = asked(net, ({0: sign}, 0, True))
    assert mipverify.verify(net, strict, timeout=5).verdict == "holds"
    loose = asked(net, ({0: sign}, 0, False))
    assert mipverify.verify(net, loose, timeout=5).verdict != "holds", "zero is reached, or may be"


def test_one_strict_row_excludes_a_conjunction(tmp_path: Path) -> None:
    net = network(tmp_path, "relu")
    never, always = ({0: 1}, 0, True), ({1: 1}, 100, False)
    for rows in ([never, always], [always, never], [always, always, never], [never, ({1: 1}, 0, True)]):
        assert mipverify.verify(net, asked(net, *rows), timeout=5).verdict == "holds"


def test_a_row_that_is_met_with_equality_is_no_exclusion_of_others(tmp_path: Path) -> None:
    # Y_0 <= 0 is met where the ReLU is off, and Y_1 < 100 everywhere: the margin of the two is zero there.
    net = network(tmp_path, "relu")
    verdict = mipverify.verify(net, asked(net, ({0: 1}, 0, False), ({1: 1}, 100, True)), timeout=5)
    assert verdict.verdict == "violated"
    verdict = mipverify.verify(net, asked(net, ({0: 1}, "1e-30", True)), timeout=5)
    assert verdict.verdict == "violated"


def test_a_negative_summand_is_no_sum_of_signs(tmp_path: Path) -> None:
    net = network(tmp_path, "sum of relus")
    for row in ({0: 1, 1: -1}, {0: -1}, {0: "1e-30", 1: -1}):
        assert mipverify.verify(net, asked(net, (row, 0, True)), timeout=5).verdict == "violated"


BOUNDED = {
    "clip": ([("Clip", ["h", "low", "high"], {})], "low", "high"),
    "clip from one side": ([("Relu", ["h"], {}), ("Clip", ["1", "", "high"], {})], None, "high"),
    "minimum": ([("Min", ["h", "high"], {})], None, "high"),
    "maximum": ([("Max", ["h", "low"], {})], "low", None),
    "clip of a bias": ([("Add", ["h", "bias"], {}), ("Clip", ["1", "low", "high"], {})], "low", "high"),
    "clip twice": ([("Clip", ["h", "low", "high"], {}), ("Clip", ["1", "low", "middle"], {})], "low", "middle"),
    "clip of a clip and a scale": (
        [("Clip", ["h", "low", "high"], {}), ("Mul", ["1", "two"], {}), ("Clip", ["2", "", "high"], {})],
        None,
        "high",
    ),
}
CONSTANTS |= {
    "low": np.float32(-0.3),
    "high": np.float32(0.7),
    "middle": np.float32(0.1),
    "two": np.float32(2),
    "bias": np.array([[0.1, 0.2]], np.float32),
}


@pytest.mark.parametrize("end", BOUNDED)
def test_never_beyond_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    steps, low, high = BOUNDED[end]
    monkeypatch.setitem(ENDS, end, (steps, ""))
    net = network(tmp_path, end)
    for name, sign in ((low, 1), (high, -1)):
        if name is None:
            continue
        limit = Fraction(float(CONSTANTS[name])) * sign
        verdict = mipverify.verify(net, asked(net, ({1: sign}, limit, True)), timeout=5)
        assert verdict.verdict == "holds"
        beyond = limit + Fraction(1, 2**30)
        assert mipverify.verify(net, asked(net, ({1: sign}, beyond, True)), timeout=5).verdict != "holds"
        assert mipverify.verify(net, asked(net, ({1: sign}, limit, False)), timeout=5).verdict != "holds"
