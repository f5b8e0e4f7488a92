"""Where, Not and masks behind comparisons: ReLUs where the branches meet, a refusal where they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from mipverify.errors import InputError
from mipverify.network import Network, load
from tests.network.graphs import Graph, runtime

KINDS = {"float": np.float32, "double": np.float64}
RNG = np.random.default_rng(7)
CONSTANTS: dict[str, Any] = {
    "zero": 0.0,
    "one": 1.0,
    "six": 6.0,
    "minus": -1.0,
    "tenth": 0.1,
    "three": 3.0,
    "half": 0.5,
    "slopes": [[0.1], [-0.3]],
    "limits": [[0.2, 1.0, -0.4], [0.7, 0.0, 2.0]],
    "w": RNG.normal(size=(3, 3)),
}


def choice_model(body: str, kind: str) -> onnx.ModelProto:
    """The model of a body in ONNX's text form; TYPE stands for the number of its element type."""
    body = body.replace("TYPE", "1" if kind == "float" else "11")
    text = f'<ir_version: 9, opset_import: ["": 18]> g ({kind}[2,3] x) => ({kind}[2,3] y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    used = {name for node in model.graph.node for name in node.input}
    for name, value in CONSTANTS.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, KINDS[kind]), name))
    return model


def _network(body: str, kind: str, path: Path) -> Network:
    path.write_bytes(choice_model(body, kind).SerializeToString())
    return load(path)


CONTINUOUS = {
    "relu": "c = Greater (x, zero) y = Where (c, x, zero)",
    "relu, turned": "c = Less (x, zero) y = Where (c, zero, x)",
    "relu, zero to the left": "c = GreaterOrEqual (zero, x) y = Where (c, zero, x)",
    "relu, negated": "c = LessOrEqual (x, zero) n = Not (c) y = Where (n, x, zero)",
    "leaky": "c = Greater (x, zero) a = Mul (x, tenth) y = Where (c, x, a)",
    "leaky, by a quotient": "c = Greater (x, zero) a = Div (x, three) y = Where (c, x, a)",
    "leaky, by two quotients": "c = Less (x, zero) a = Div (x, three) b = Div (x, six) y = Where (c, a, b)",
    "leaky, a slope for each row": "c = Greater (x, zero) a = Mul (slopes, x) y = Where (c, x, a)",
    "absolute value": "c = GreaterOrEqual (x, zero) n = Neg (x) y = Where (c, x, n)",
    "maximum": "b = MatMul (x, w) c = Greater (x, b) y = Where (c, x, b)",
    "minimum": "b = MatMul (x, w) c = Less (x, b) y = Where (c, x, b)",
    "maximum of transposes": "t = Transpose (x) b = Transpose (t) a = MatMul (x, w) "
    "c = Greater (a, b) y = Where (c, a, x)",
    "against limits": "c = Greater (x, limits) y = Where (c, limits, x)",
    "clip": "a = Less (x, minus) b = Greater (x, one) h = Where (b, one, x) y = Where (a, minus, h)",
    "clip, one after the other": "a = Less (x, tenth) h = Where (a, tenth, x) "
    "b = Greater (h, one) y = Where (b, one, h)",
    "relu6": "r = Relu (x) c = Less (r, six) y = Where (c, r, six)",
    "relu6, inside": "a = Less (x, six) h = Where (a, x, six) c = Greater (x, zero) y = Where (c, h, zero)",
    "dead zone": "a = Sub (x, half) b = Add (x, half) p = Greater (x, half) n = Neg (half) q = Less (x, n) "
    "h = Where (q, b, zero) y = Where (p, a, h)",
    "bends later": "a = Sub (x, half) r = Relu (a) c = Greater (x, zero) y = Where (c, r, zero)",
    "ends later": "m = Sub (half, x) r = Relu (m) h = Sub (r, half) c = Greater (x, zero) y = Where (c, h, x)",
    "wider scale": "d = Mul (x, three) c = Greater (d, zero) y = Where (c, x, zero)",
    "a shifted threshold": "d = Sub (x, tenth) c = Greater (d, zero) y = Where (c, d, zero)",
    "a mask as numbers": "c = Greater (x, zero) m = Cast <to: int = TYPE> (c) y = Mul (x, m)",
    "two masks": "c = Greater (x, zero) m = Cast <to: int = TYPE> (c) n = Not (c) k = Cast <to: int = TYPE> (n) "
    "a = Mul (x, m) b = Mul (x, k) d = Mul (b, tenth) y = Add (a, d)",
    "behind a product": "h = MatMul (x, w) c = Greater (h, zero) a = Where (c, h, zero) y = Add (a, x)",
    "of equals": "c = Greater (x, one) y = Where (c, x, x)",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONTINUOUS)
def test_choices_that_meet(name: str, kind: str, tmp_path: Path) -> None:
    body = CONTINUOUS[name]
    network = _network(body, kind, tmp_path / "net.onnx")
    model = (tmp_path / "net.onnx").read_bytes()
    special = [-6, -1, -0.5, 0.0, 0.1, 0.2, 0.5, 0.7, 1, 6, np.nextafter(np.float32(0.1), np.float32(1))]
    for i in range(12):
        x = RNG.normal(size=(2, 3)).astype(np.float32) * (1 if i % 2 else 5)
        x.flat[RNG.integers(6, size=2)] = RNG.choice(special, size=2)
        expected = runtime(model, x.astype(KINDS[kind]))
        tolerance = 1e-5 if kind == "float" else 1e-13
        np.testing.assert_allclose(network.forward(x[None].astype(float))[0], expected, atol=tolerance, rtol=tolerance)


def test_a_relu_is_one_relu(tmp_path: Path) -> None:
    network = _network("h = MatMul (x, w) " + CONTINUOUS["relu"].replace("x", "h"), "float", tmp_path / "net.onnx")
    assert len(network.relus) == 1


REFUSED = {
    "step": ("c = Greater (x, zero) y = Where (c, one, zero)", "jumps by up to 1"),
    "hard threshold": ("c = Greater (x, one) y = Where (c, x, zero)", "jumps by up to 1"),
    "a threshold off by one float": ("c = Greater (x, tenth) y = Where (c, x, LATER)", "jumps by up to 7.4"),
    "a line off by a rounding": (
        "c = Greater (x, three) a = Div (x, three) y = Where (c, one, a)",
        "not known to meet|jumps",
    ),
    "another tensor": ("h = MatMul (x, w) c = Greater (x, zero) y = Where (c, h, x)", "not known to meet"),
    "a jump in one entry": ("c = Greater (x, limits) y = Where (c, x, zero)", "jumps by up to 2"),
    "ends too late": ("m = Sub (half, x) r = Relu (m) c = Greater (x, zero) y = Where (c, r, x)", "jumps by up to 0.5"),
    "a mask that is added": ("c = Greater (x, zero) m = Cast <to: int = 1> (c) y = Add (x, m)", "comparison"),
    "a mask alone": ("c = Greater (x, zero) y = Cast <to: int = 1> (c)", "comparison"),
    "a mask times a constant": ("c = Greater (x, zero) m = Cast <to: int = 1> (c) y = Mul (m, one)", "jumps"),
    "both": ("a = Greater (x, zero) b = Less (x, one) c = And (a, b) y = Where (c, x, zero)", "operator And"),
    "equality": ("c = Equal (x, zero) y = Where (c, x, zero)", "operator Equal"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_choices_that_jump_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, message = REFUSED[name]
    later = np.nextafter(np.float32(0.1), np.float32(1))
    monkeypatch.setitem(CONSTANTS, "later", float(later))
    with pytest.raises(InputError, match=message):
        _network(body.replace("LATER", "later"), "float", tmp_path / "net.onnx")
    with pytest.raises(InputError):
        _network(body.replace("LATER", "later").replace("to: int = 1>", "to: int = 11>"), "double", tmp_path / "d.onnx")


NUMBERS = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
KINKED = st.recursive(
    st.one_of(st.just(("x",)), st.tuples(st.just("constant"), NUMBERS)),
    lambda inner: st.one_of(
        st.tuples(st.just("line"), inner, NUMBERS, NUMBERS),
        st.tuples(st.just("relu"), inner),
        st.tuples(st.just("where"), inner, inner, inner, inner),
    ),
    max_leaves=7,
)


def _build(g: Graph, e: Any) -> str:
    if e[0] == "x":
        return "x"
    if e[0] == "constant":
        return g.constant(e[1])
    if e[0] == "line":
        return str(g.node("Add", [g.node("Mul", [_build(g, e[1]), g.constant(e[2])]), g.constant(e[3])]))
    if e[0] == "relu":
        return str(g.node("Relu", [_build(g, e[1])]))
    a, b, one, other = (_build(g, part) for part in e[1:])
    return str(g.node("Where", [g.node("Greater", [a, b]), one, other]))


def _value(e: Any, x: np.ndarray) -> np.ndarray:
    if e[0] == "x":
        return x
    if e[0] == "constant":
        return np.full_like(x, e[1])
    if e[0] == "line":
        return _value(e[1], x) * e[2] + e[3]
    if e[0] == "relu":
        return np.maximum(_value(e[1], x), 0)
    a, b, one, other = (_value(part, x) for part in e[1:])
    return np.where(a > b, one, other)


def test_random_choices_are_read_right_or_refused(tmp_path: Path) -> None:
    """Of one variable, in numbers that float64 adds and multiplies exactly."""
    seen = {"read": 0, "refused": 0}

    @settings(max_examples=600, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(KINKED)
    def check(e: Any) -> None:
        g = Graph([1, 1], dtype=np.float64)
        g.save(tmp_path / "net.onnx", g.node("Add", [g.node("Neg", [_build(g, e)]), "x"]))
        try:
            network = load(tmp_path / "net.onnx")
        except InputError:
            seen["refused"] += "where" in str(e)
            return
        seen["read"] += "where" in str(e)
        x = np.arange(-8, 8, 2.0**-5)
        np.testing.assert_array_equal(network.forward(x.reshape(-1, 1, 1)).reshape(-1), x - _value(e, x))

    check()
    assert seen["read"] > 50
    assert seen["refused"] > 50
