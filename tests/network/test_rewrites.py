"""Every ONNX operator, with random attributes and shapes, means what ONNX Runtime computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from tests.network.graphs import Graph, agrees

QUICK = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
Draw = Callable[[Any], Any]
SMALL = st.integers(1, 4)
SHAPES = st.lists(SMALL, min_size=1, max_size=4).map(lambda sizes: [1, *sizes])
OPSETS = st.sampled_from([7, 9, 11, 13, 15, 18, 21, 22])


def build_gemm(draw: Draw) -> tuple[Graph, str]:
    k, n, m = draw(SMALL), draw(SMALL), draw(SMALL)
    flip, other = draw(st.booleans()), draw(st.booleans())
    options = {"alpha": draw(st.sampled_from([1.0, 0.5, 0.3])), "beta": draw(st.sampled_from([1.0, -0.7]))}
    options |= {"transA": int(flip), "transB": int(other)}
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    if draw(st.booleans()):
        g = Graph([k, m] if flip else [m, k], opset=draw(OPSETS), dtype=dtype)
        weight = g.random(*((n, k) if other else (k, n)))
        return g, g.node("Gemm", ["x", weight, g.random(n)], **options)
    g = Graph([n, k] if other else [k, n], opset=draw(OPSETS), dtype=dtype)
    weight = g.random(*((k, m) if flip else (m, k)))
    summand = g.random(m, 1)
    if draw(st.booleans()):
        summand = g.node("ReduceMax", ["x"], keepdims=0) if g.opset >= 13 or dtype == np.float32 else summand
    return g, g.node("Gemm", [weight, "x", summand], **options)


def build_matmul(draw: Draw) -> tuple[Graph, str]:
    k, m, n, b = draw(SMALL), draw(SMALL), draw(SMALL), draw(SMALL)
    left, right = draw(
        st.sampled_from(
            [
                ((m, k), (k, n)),
                ((b, m, k), (k, n)),
                ((b, m, k), (b, k, n)),
                ((1, m, k), (b, k, n)),
                ((m, k), (k,)),
                ((k,), (k, n)),
                ((1, b, 1, k), (1, k, n)),
                ((k,), (b, k, n)),
            ]
        )
    )
    if draw(st.booleans()):
        g = Graph(list(left), opset=draw(OPSETS))
        return g, g.node("MatMul", ["x", g.random(*right)])
    g = Graph(list(right), opset=draw(OPSETS))
    return g, g.node("MatMul", [g.random(*left), "x"])


def build_arithmetic(draw: Draw) -> tuple[Graph, str]:
    shape = draw(SHAPES)
    g = Graph(shape, opset=draw(OPSETS))
    mask = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    other = [1 if one else size for one, size in zip(mask, shape, strict=True)][draw(st.integers(0, len(shape) - 1)) :]
    if draw(st.booleans()) and len(other) == len(shape):
        other = [draw(SMALL) if size == 1 else size for size in other]
        other = [o if s in (1, o) or o == 1 else s for o, s in zip(other, shape, strict=True)]
    constant = g.constant(g.rng.uniform(0.3, 2, size=other) * g.rng.choice([-1, 1], size=other))
    operator = draw(st.sampled_from(["Add", "Sub", "Mul", "Div"]))
    order = ["x", constant] if operator == "Div" or draw(st.booleans()) else [constant, "x"]
    return g, g.node("Neg", [g.node(operator, order)])


def build_self_sum(draw: Draw) -> tuple[Graph, str]:
    g = Graph(draw(SHAPES), opset=draw(st.sampled_from([8, 13, 18])))
    h = g.node("Relu", ["x"])
    y = g.node(draw(st.sampled_from(["Sum", "Mean"])), ["x", h, g.constant(0.25), g.node("Neg", ["x"])])
    return g, g.node("Sub", [y, h])


def _image(draw: Draw, channels: int) -> tuple[list[int], int]:
    axes = draw(st.integers(1, 2))
    return [1, channels, *(draw(st.integers(3, 7)) for _ in range(axes))], axes


def _many(draw: Draw, count: int, low: int, high: int) -> list[int]:
    return [draw(st.integers(low, high)) for _ in range(count)]


def _padding(draw: Draw, axes: int, largest: int) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"pads": _many(draw, 2 * axes, 0, largest)}
    return {"auto_pad": draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"]))}


def build_conv(draw: Draw) -> tuple[Graph, str]:
    groups, inner, outer = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    shape, axes = _image(draw, groups * inner)
    g = Graph(shape, opset=draw(OPSETS))
    inputs = ["x", g.random(groups * outer, inner, *_many(draw, axes, 1, 3))]
    inputs += [g.random(groups * outer)] if draw(st.booleans()) else []
    padding = _padding(draw, axes, 2)
    # ONNX Runtime reads SAME with dilations in its own way
    dilations = [1] * axes if "auto_pad" in padding else _many(draw, axes, 1, 1 if min(shape[2:]) < 5 else 2)
    strides = _many(draw, axes, 1, 3)
    return g, g.node("Conv", inputs, group=groups, strides=strides, dilations=dilations, **padding)


def build_conv_transpose(draw: Draw) -> tuple[Graph, str]:
    groups, inner, outer = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    shape, axes = _image(draw, groups * inner)
    g = Graph(shape, opset=draw(OPSETS))
    inputs = ["x", g.random(groups * inner, outer, *_many(draw, axes, 1, 3))]
    inputs += [g.random(groups * outer)] if draw(st.booleans()) else []
    strides = _many(draw, axes, 1, 3)
    padding: dict[str, Any] = {"pads": _many(draw, 2 * axes, 0, 1)} if draw(st.booleans()) else {}
    extra = [draw(st.integers(0, stride - 1)) for stride in strides]
    dilations = _many(draw, axes, 1, 2)
    if draw(st.booleans()):
        kernel = g.constants[0].dims[2:]
        reach = [
            (n - 1) * s + d * (k - 1) + 1 + e
            for n, s, d, k, e in zip(shape[2:], strides, dilations, kernel, extra, strict=True)
        ]
        padding = {
            "output_shape": [
                max(1, full + draw(st.integers(-3, stride - 1 - e)))
                for full, stride, e in zip(reach, strides, extra, strict=True)
            ],
            "auto_pad": draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])),
        }
    return g, g.node(
        "ConvTranspose", inputs, group=groups, strides=strides, output_padding=extra, dilations=dilations, **padding
    )


def build_batch_normalization(draw: Draw) -> tuple[Graph, str]:
    shape = [1, draw(SMALL), *_many(draw, draw(st.integers(0, 2)), 1, 3)]
    g = Graph(shape, opset=draw(OPSETS))
    c = shape[1]
    inputs = ["x", g.random(c), g.random(c), g.random(c), g.constant(g.rng.uniform(0.1, 2, c))]
    return g, g.node("BatchNormalization", inputs, epsilon=draw(st.sampled_from([1e-5, 1e-2])))


def _pool(draw: Draw, operator: str, **options: Any) -> tuple[Graph, str]:
    shape, axes = _image(draw, draw(st.integers(1, 2)))
    opset = draw(st.sampled_from([18, 19, 22] if operator == "LpPool" else [10, 11, 12, 18, 19, 22]))
    g = Graph(shape, opset=opset)
    kernel = _many(draw, axes, 1, 3)
    padding = _padding(draw, axes, min(kernel) - 1)
    same = padding.get("auto_pad", "VALID").startswith("SAME")
    if min(shape[2:]) > 4 and (operator != "AveragePool" or opset >= 19):
        options["dilations"] = _many(draw, axes, 1, 2)
    # ONNX Runtime refuses SAME where a stride is longer than the window
    strides = [draw(st.integers(1, k if same else 3)) for k in kernel]
    ceil = draw(st.integers(0, 1))
    return g, g.node(operator, ["x"], kernel_shape=kernel, strides=strides, ceil_mode=ceil, **padding, **options)


def build_average_pool(draw: Draw) -> tuple[Graph, str]:
    return _pool(draw, "AveragePool", count_include_pad=draw(st.integers(0, 1)))


def build_max_pool(draw: Draw) -> tuple[Graph, str]:
    return _pool(draw, "MaxPool")


def build_norm_pool(draw: Draw) -> tuple[Graph, str]:
    if draw(st.booleans()):
        return _pool(draw, "LpPool", p=1)
    g = Graph(_image(draw, draw(SMALL))[0], opset=draw(OPSETS))
    return g, g.node("GlobalLpPool", ["x"], p=1)


def build_global_pool(draw: Draw) -> tuple[Graph, str]:
    g = Graph(_image(draw, draw(SMALL))[0], opset=draw(OPSETS))
    return g, g.node(draw(st.sampled_from(["GlobalAveragePool", "GlobalMaxPool"])), ["x"])


def build_activation(draw: Draw) -> tuple[Graph, str]:
    shape = draw(SHAPES)
    g = Graph(shape, opset=draw(OPSETS))
    operator = draw(st.sampled_from(["Relu", "LeakyRelu", "PRelu", "Abs", "HardSigmoid", "Shrink", "ThresholdedRelu"]))
    g = g if g.opset >= 10 or operator not in ("Shrink", "ThresholdedRelu") else Graph(shape, opset=11)
    if operator == "HardSigmoid":
        options = {"alpha": draw(st.sampled_from([0.1, 1 / 6, -0.3])), "beta": draw(st.sampled_from([0.5, -0.2]))}
        return g, g.node(operator, ["x"], **(options if draw(st.booleans()) else {}))
    if operator == "Shrink":
        limit, bias = draw(st.sampled_from([(0.3, 0.3), (0.0, 0.0), (-0.5, 0.0)]))
        return g, g.node(operator, ["x"], lambd=limit, bias=bias)
    if operator == "ThresholdedRelu":
        return g, g.node(operator, ["x"], alpha=0.0)
    if operator == "LeakyRelu":
        return g, g.node(operator, ["x"], alpha=draw(st.sampled_from([0.01, 0.3, 1.5, -0.5, 0.0])))
    if operator == "PRelu":
        slope = draw(st.sampled_from([[1], shape, [shape[1], *[1] * (len(shape) - 2)]]))
        return g, g.node(operator, ["x", g.random(*slope)])
    return g, g.node(operator, ["x"])


LARGEST = float(np.finfo(np.float32).max)


def build_clip(draw: Draw) -> tuple[Graph, str]:
    low = draw(st.sampled_from([None, -0.5, 0.0, 0.3, -np.inf, -LARGEST]))
    high = draw(st.sampled_from([None, 0.5, 1.0, 6.0, np.inf, LARGEST]))
    bounds = {"min": low, "max": high}
    if draw(st.booleans()):
        g = Graph(draw(SHAPES), opset=draw(st.sampled_from([7, 9, 10])))
        return g, g.node("Clip", ["x"], **{name: value for name, value in bounds.items() if value is not None})
    bounds["max"] = draw(st.sampled_from([high, -0.1]))  # crossed bounds: the upper one wins
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    g = Graph(draw(SHAPES), opset=draw(st.sampled_from([12, 13, 21])), dtype=dtype)
    bounds["min"] = 0.1 if bounds["min"] == 0.3 else bounds["min"]  # a double that is no float32
    names = ["" if value is None else g.constant(value) for value in bounds.values()]
    return g, g.node("Clip", ["x", *names])


def build_extremum(draw: Draw) -> tuple[Graph, str]:
    shape = draw(SHAPES)
    g = Graph(shape, opset=draw(st.sampled_from([8, 12, 13])), dtype=draw(st.sampled_from([np.float32, np.float64])))
    operator = draw(st.sampled_from(["Max", "Min"]))
    partly = np.where(g.rng.random(shape) < 0.5, -np.inf if operator == "Max" else np.inf, 0.1)
    never = np.finfo(g.dtype).min if operator == "Max" else np.finfo(g.dtype).max
    constants = [g.random(*shape), g.constant(0.2), g.random(1), g.constant(partly), g.constant(never)]
    candidates = [g.node("Neg", ["x"]), g.node("Relu", ["x"]), *constants]
    picked = draw(st.lists(st.sampled_from(candidates), max_size=4))
    return g, g.node(operator, ["x", *picked])


def build_reduce(draw: Draw) -> tuple[Graph, str]:
    shape = draw(SHAPES)
    operator = draw(st.sampled_from(["ReduceSum", "ReduceMean", "ReduceL1", "ReduceMax", "ReduceMin"]))
    axes = draw(st.lists(st.integers(-len(shape), len(shape) - 1), min_size=1, max_size=2, unique_by=lambda a: a % 9))
    axes = sorted({axis % len(shape) for axis in axes})
    opset = draw(OPSETS)
    g = Graph(shape, opset=opset)
    keep = {"keepdims": draw(st.integers(0, 2))}
    as_input = opset >= (13 if operator == "ReduceSum" else 18)
    if draw(st.integers(0, 4)) == 0:
        if as_input:
            keep["noop_with_empty_axes"] = draw(st.integers(0, 2))
        return g, g.node(operator, ["x"], **keep)
    if as_input:
        return g, g.node(operator, ["x", g.constant(axes, np.int64)], **keep)
    return g, g.node(operator, ["x"], axes=axes, **keep)


def build_view(draw: Draw) -> tuple[Graph, str]:
    shape = draw(SHAPES)
    opset = draw(OPSETS)
    g = Graph(shape, opset=opset)
    y = g.node("Flatten", ["x"], axis=draw(st.integers(0, len(shape))))
    y = g.node("Reshape", [y, g.constant([1, -1, shape[-1], 1], np.int64)])
    if opset >= 13:
        y = g.node("Squeeze", [y, g.constant([-1], np.int64)])
        y = g.node("Unsqueeze", [y, g.constant([0, 2], np.int64)])
    else:
        y = g.node("Squeeze", [y], axes=[3])
        y = g.node("Unsqueeze", [y], axes=[0, 2])
    y = g.node("Identity", [g.node("Dropout", [y])])
    y = g.node("Cast", [g.node("Cast", [y], to=TensorProto.DOUBLE)], to=TensorProto.FLOAT)
    return g, g.node("Reshape", [y, g.constant([0, 0, -1], np.int64)])


def build_transpose(draw: Draw) -> tuple[Graph, str]:
    shape = draw(SHAPES)
    g = Graph(shape, opset=draw(OPSETS))
    options = {"perm": draw(st.permutations(range(len(shape))))} if draw(st.booleans()) else {}
    return g, g.node("Transpose", ["x"], **options)


def build_concat_split(draw: Draw) -> tuple[Graph, str]:
    shape = draw(SHAPES)
    opset = draw(OPSETS)
    g = Graph(shape, opset=opset)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    inputs = draw(st.permutations(["x", g.node("Relu", ["x"]), g.random(*shape)]))
    y = g.node("Concat", inputs, axis=axis)
    size = 3 * shape[axis]
    cut = draw(st.integers(1, size - 1))
    if opset >= 13:
        parts = g.node("Split", [y, g.constant([cut, size - cut], np.int64)], outputs=2, axis=axis)
    else:
        parts = g.node("Split", [y], outputs=2, axis=axis, split=[cut, size - cut])
    return g, g.node("Concat", [parts[1], parts[0]], axis=axis)


def build_even_split(draw: Draw) -> tuple[Graph, str]:
    g = Graph([1, 2 * draw(SMALL), 3], opset=draw(OPSETS))
    options = {"num_outputs": 2} if g.opset >= 18 else {}
    a, b = g.node("Split", ["x"], outputs=2, axis=1, **options)
    return g, g.node("Sub", [a, b])


def build_slice(draw: Draw) -> tuple[Graph, str]:
    shape = [1, draw(st.integers(3, 6)), draw(st.integers(3, 6))]
    opset = draw(OPSETS)
    g = Graph(shape, opset=opset)
    if opset < 10:
        return g, g.node("Slice", ["x"], starts=[1, -3], ends=[1000, -1], axes=[1, 2])
    starts, ends, steps = draw(
        st.sampled_from(
            [
                ([1, 0], [3, 2], [1, 1]),
                ([-1, 0], [-1000, 9], [-1, 2]),
                ([2, -2], [0, 1000], [-1, 1]),
                ([0, 2], [9, -9], [2, -2]),
            ]
        )
    )
    constants = [g.constant(values, np.int64) for values in (starts, ends, [1, -1], steps)]
    return g, g.node("Slice", ["x", *constants])


def build_gather(draw: Draw) -> tuple[Graph, str]:
    shape = draw(SHAPES)
    g = Graph(shape, opset=draw(OPSETS))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    low = 0 if g.opset < 11 else -shape[axis]
    index = st.integers(low, shape[axis] - 1)
    indices = draw(st.one_of(index, st.lists(index, min_size=1, max_size=5)))
    return g, g.node("Gather", ["x", g.constant(indices, np.int64)], axis=axis)


def build_pad(draw: Draw) -> tuple[Graph, str]:
    shape = [1, 2, draw(st.integers(3, 4)), draw(st.integers(3, 4))]
    opset = draw(OPSETS)
    g = Graph(shape, opset=opset, dtype=draw(st.sampled_from([np.float32, np.float64])))
    mode = draw(st.sampled_from(["constant", "reflect", "edge"]))
    low = -1 if mode == "constant" else 0
    begin, end = _many(draw, 2, low, 2), _many(draw, 2, low, 2)
    pads, value = [0, 0, *begin, 0, 0, *end], draw(st.sampled_from([0.0, 0.7]))
    if opset < 11:
        return g, g.node("Pad", ["x"], pads=pads, mode=mode, value=value)
    return g, g.node("Pad", ["x", g.constant(pads, np.int64), g.constant(value)], mode=mode)


def build_repeat(draw: Draw) -> tuple[Graph, str]:
    g = Graph([1, draw(SMALL), 1], opset=draw(st.sampled_from([9, 13, 18])))
    if draw(st.booleans()):
        return g, g.node("Expand", ["x", g.constant([2, 1, 1, 3], np.int64)])
    return g, g.node("Tile", ["x", g.constant([1, 2, 3], np.int64)])


def build_derived_shape(draw: Draw) -> tuple[Graph, str]:
    """x.view(x.size(0), -1) as PyTorch used to export it, and a constant filled from a shape."""
    g = Graph([draw(st.sampled_from([1, "N"])), *draw(st.lists(SMALL, min_size=2, max_size=3))], opset=11)
    h = g.node("Relu", ["x"])
    size = g.node("Gather", [g.node("Shape", [h]), g.constant(0, np.int64)], axis=0)
    rest = g.node("Constant", [], value=numpy_helper.from_array(np.array([-1], dtype=np.int64)))
    target = g.node("Concat", [g.node("Unsqueeze", [size], axes=[0]), rest], axis=0)
    y = g.node("Reshape", [h, target])
    fill = numpy_helper.from_array(np.array([0.5], dtype=np.float32))
    ones = g.node("ConstantOfShape", [g.node("Shape", [y])], value=fill)
    product = g.node("Mul", [g.node("Sqrt", [g.node("Add", [ones, ones])]), g.constant(2.0)])  # folded by reference
    return g, g.node("Sub", [y, product])


def build_fold(draw: Draw) -> tuple[Graph, str]:
    rank = 2  # of one axis, ONNX Runtime 1.32 misplaces dilated blocks of all channels but the first
    block, strides, dilations = ([draw(st.integers(1, 3)) for _ in range(rank)] for _ in range(3))
    low, high = ([draw(st.integers(0, 2)) for _ in range(rank)] for _ in range(2))
    sizes = zip(block, dilations, low, high, strict=True)
    image = [max(1, dilation * (size - 1) + 1 - a - b) + draw(st.integers(0, 4)) for size, dilation, a, b in sizes]
    padded = zip(image, low, high, block, strides, dilations, strict=True)
    counts = [(n + a + b - d * (k - 1) - 1) // s + 1 for n, a, b, k, s, d in padded]
    columns = draw(st.integers(1, 2)) * int(np.prod(block))
    g = Graph([draw(st.integers(1, 2)), columns, int(np.prod(counts))], opset=18)
    shapes = [g.constant(image, np.int64), g.constant(block, np.int64)]
    return g, g.node("Col2Im", ["x", *shapes], strides=strides, dilations=dilations, pads=[*low, *high])


BUILDERS = {
    name.removeprefix("build_"): function for name, function in globals().copy().items() if name[:6] == "build_"
}


@pytest.mark.parametrize("name", BUILDERS)
def test_means_what_onnx_runtime_computes(name: str, tmp_path: Path) -> None:
    @QUICK
    @given(st.data())
    def check(data: st.DataObject) -> None:
        graph, output = BUILDERS[name](data.draw)
        agrees(graph, output, tmp_path / "net.onnx")

    check()
