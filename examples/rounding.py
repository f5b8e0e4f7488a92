"""A property that is proven of a network, and that ONNX Runtime violates everywhere: rounding decides.

The network moves its input by 2^24 and back. In real numbers nothing happens; in float32 everything below 1 is lost, so
that scores that never fall below 0.6 are 0. `python examples/rounding.py` asks the same question twice.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import mipverify

PROPERTY = """(declare-const X_0 Real)
(declare-const Y_0 Real)
(assert (>= X_0 0.6))
(assert (<= X_0 0.9))
(assert (<= Y_0 0.5))
"""


def write_network(path: Path) -> None:
    """Write relu(x + 2^24 - 2^24)."""
    far = numpy_helper.from_array(np.array([2.0**24], np.float32), "far")
    nodes = [
        helper.make_node("Add", ["x", "far"], ["moved"]),
        helper.make_node("Sub", ["moved", "far"], ["back"]),
        helper.make_node("Relu", ["back"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1]) for name in ("x", "y"))
    graph = helper.make_graph(nodes, "rounding", [x], [y], [far])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def main() -> None:
    """Ask of both arithmetics."""
    with tempfile.TemporaryDirectory() as folder:
        network, question = Path(folder) / "network.onnx", Path(folder) / "property.vnnlib"
        write_network(network)
        question.write_text(PROPERTY)
        for arithmetic in ("real", "float32"):
            specification = mipverify.load_vnnlib(question)
            verdict = mipverify.verify(network, specification, arithmetic=arithmetic)
            print(f"{arithmetic}: {verdict.verdict}")
            if verdict.witness is not None:
                x, y = (float(v.item()) for v in (verdict.witness.input, verdict.witness.output))
                print(f"  ONNX Runtime makes {y:g} of {x:g}")


if __name__ == "__main__":
    main()
