"""Functions at the end of a network that only rank its outputs, and are left out (docs/proof-format.md, section 3)."""

from __future__ import annotations

import math

from onnx import TensorProto

from mipverify_check.builder import OnnxNode
from mipverify_check.errors import BadInputError
from mipverify_check.network import Tensor
from mipverify_check.onnx_file import STANDARD, OnnxFile

RANKING = ("Softmax", "LogSoftmax", "Sigmoid", "ArgMax")
VIEWS = ("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze")
EVERY_CLASS = (TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT, TensorProto.DOUBLE)


def last_layer(file: OnnxFile) -> int:
    """How many nodes come before the functions that rank; views may follow these, and casts a class."""
    end, name = len(file.nodes), file.output_name
    for i in range(len(file.nodes) - 1, -1, -1):
        node = file.nodes[i]
        if node.output[0] != name or node.domain not in STANDARD or node.op_type not in (*RANKING, *VIEWS, "Cast"):
            break
        end, name = (i if node.op_type in RANKING else end), node.input[0]
    return end


def ranked(file: OnnxFile, end: int, output: Tensor) -> tuple[str, ...]:
    """The functions behind the first `end` nodes, which make `output`. Raises BadInputError where one ranks nothing."""
    nodes = [OnnxNode(proto, [], file.opset) for proto in file.nodes[end:]]
    found = tuple(node.operator for node in nodes if node.operator in RANKING)
    for place, node in enumerate(nodes):
        if place >= len(found):
            if node.operator == "Cast" and (found[-1] != "ArgMax" or node.get("to") not in EVERY_CLASS):
                raise BadInputError(f"{file.path}: a last Cast may change the order of the outputs")
            continue
        old = file.opset < 13 and node.operator != "ArgMax"
        axis = node.get("axis", 0 if node.operator == "ArgMax" else 1 if old else -1)
        inside = -len(output.shape) <= axis < len(output.shape)
        over = math.prod(output.shape[axis:]) if old else output.shape[axis] if inside else 0
        if node.operator not in RANKING or (node.operator != "Sigmoid" and over != output.size):
            raise BadInputError(f"{file.path}: the last {node.operator} is not over all entries")
        if node.operator == "ArgMax" and place + 1 < len(found):
            raise BadInputError(f"{file.path}: a function of the class is not supported")
    return found
