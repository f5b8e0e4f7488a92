"""What the verifier once read wrongly, the checker reads for itself: proofs of such readings are rejected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mipverify_check import main, onnx_file, operators
from mipverify_check.arithmetic import FLOATS
from mipverify_check.errors import BadInputError, RejectedError
from onnx import helper

import mipverify
from mipverify.engine.schedule import CASCADE
from mipverify.engine.verify import verify
from mipverify.network import validation
from mipverify.network.rewrites import REWRITES, pooling
from mipverify.network.rewrites.convolution import conv_transposed, paired
from tests.checker.making import model, property_text


def pooled() -> Any:
    """Pooling with auto_pad VALID and ceil_mode: the last windows hang over the edge."""
    nodes = [
        helper.make_node("MaxPool", ["x"], ["m"], auto_pad="VALID", ceil_mode=1, kernel_shape=[2, 2], strides=[3, 3]),
        helper.make_node("GlobalMaxPool", ["m"], ["g"]),
        helper.make_node("Flatten", ["g"], ["y"]),
    ]
    return model(nodes, {}, [1, 1, 4, 4])


def without_ceil(builder: Any, node: Any) -> Any:
    windows = pooling.windows_of(node, node.tensor(0))
    object.__setattr__(windows, "ceil", False)
    return pooling.maximized(builder, node.tensor(0), windows)


def transposed() -> Any:
    """A transposed convolution with an odd total of pads, whose larger half goes to the start."""
    weight = np.array([[[1, 2, 3]]], np.float32)
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w"], ["c"], auto_pad="VALID", output_shape=[5]),
        helper.make_node("Flatten", ["c"], ["y"]),
    ]
    return model(nodes, {"w": weight}, [1, 1, 4])


def with_the_larger_half_behind(builder: Any, node: Any) -> Any:
    return conv_transposed(
        builder, node.tensor(0), node.constant(1, "w"), None, paired(None, 1, 1), (0, 0, 0, 1), (1, 1), 1
    )


def clipped() -> Any:
    """A bound of Clip in float64: clip(x, -1, 0.1) - 0.1 is 0 for every x from 0.1 on."""
    constants = {"low": np.float64(-1), "high": np.float64(0.1), "k": np.float64(1e9)}
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["c"]),
        helper.make_node("Sub", ["c", "high"], ["d"]),
        helper.make_node("Mul", ["d", "k"], ["y"]),
    ]
    built = model(nodes, constants, [1, 1])
    built.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    built.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    return built


def with_bounds_in_float32(builder: Any, node: Any) -> Any:
    from mipverify.network.rewrites.activation import clipped as clip

    low, high = (float(np.float32(node.constant(i, "bound").reshape(()))) for i in (1, 2))
    return clip(builder, node.tensor(0), low, high)


CORNER = [("0", "0.1")] * 15 + [("0.9", "1")]
FIRST = [("0.9", "1")] + [("0", "0.01")] * 3
OLD: dict[str, tuple[Callable[[], Any], str, Any, str]] = {
    "MaxPool": (pooled, "MaxPool", without_ceil, property_text(16, 1, CORNER, "(>= Y_0 0.5)")),
    "ConvTranspose": (
        transposed,
        "ConvTranspose",
        with_the_larger_half_behind,
        property_text(4, 5, FIRST, "(>= Y_0 1.5)"),
    ),
    "Clip": (clipped, "Clip", with_bounds_in_float32, property_text(1, 1, [("1", "2")], "(<= Y_0 0.5)")),
}


@pytest.mark.parametrize("name", OLD)
def test_a_proof_of_a_wrong_reading_is_rejected(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, operator, wrong, text = OLD[name]
    onnx.save(build(), tmp_path / "net.onnx")
    (tmp_path / "p.vnnlib").write_text(text)
    asked = mipverify.load_vnnlib(tmp_path / "p.vnnlib")
    assert mipverify.verify(mipverify.load(tmp_path / "net.onnx"), asked).verdict == "violated"
    monkeypatch.setitem(REWRITES, operator, wrong)
    for comparison in ("compare", "compare_tensors", "_check_shape"):  # they would notice
        monkeypatch.setattr(validation, comparison, lambda *_: None)
    bounds_alone = [stage for stage in CASCADE if "attack" not in stage.name]
    verdict = verify(mipverify.load(tmp_path / "net.onnx"), asked, proof=True, stages=bounds_alone)
    assert verdict.verdict == "holds"
    assert verdict.proof is not None
    file = onnx_file.read(str(tmp_path / "net.onnx"))
    network = operators.lowered(file, FLOATS)
    with pytest.raises(RejectedError, match="above"):
        main.check(verdict.proof.to_bytes(), network, file.sha256, str(tmp_path / "p.vnnlib"))


def test_a_cast_behind_the_scores_is_no_order_of_them(tmp_path: Path) -> None:
    for kind in (onnx.TensorProto.INT64, onnx.TensorProto.INT32):
        nodes = [helper.make_node("Softmax", ["x"], ["s"]), helper.make_node("Cast", ["s"], ["y"], to=kind)]
        onnx.save(model(nodes, {}, [1, 3]), tmp_path / "net.onnx")
        with pytest.raises(BadInputError, match="Cast"):
            operators.lowered(onnx_file.read(str(tmp_path / "net.onnx")), FLOATS)
