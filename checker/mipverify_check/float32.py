"""Float32 evaluations of a network: how often products are rounded, and how far that takes values.

Affine nodes between stored values form blocks; what is rounded of a block's products is bounded for all of it at once
(docs/proof-format.md, section 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import onnx

from mipverify_check.arithmetic import Array
from mipverify_check.builder import OnnxNode
from mipverify_check.errors import RejectedError
from mipverify_check.maps import Gather, Map, Product, Sparse
from mipverify_check.network import Affine, Network, Node, Relu, Tensor, sources

_EXACT = (
    "Abs Clip Concat DepthToSpace Dropout Expand Flatten Gather GlobalMaxPool Identity Max MaxPool Min Neg Pad "
    "ReduceMax ReduceMin Relu Reshape Slice SpaceToDepth Split Squeeze ThresholdedRelu Tile Transpose Unsqueeze"
)
_SUMS = (
    "Add AveragePool BatchNormalization Conv ConvTranspose Div Gemm GlobalAveragePool HardSigmoid MatMul Mean Mul "
    "ReduceMean ReduceSum Sub Sum"
)
EXACT, SUMS, SLOPES = frozenset(_EXACT.split()), frozenset(_SUMS.split()), frozenset(("LeakyRelu", "PRelu"))
EXTRA = 8  # roundings of an operator beyond those of its sums
TINY, LOST = 2.0**-60, 2.0**-100
LARGEST, LARGEST_FACTOR, VARIANCES = 2.0**60, 2.0**20, (2.0**-80, 2.0**80)


def counted(node: OnnxNode, made: Sequence[Node]) -> tuple[list[Node], str | None]:
    """The nodes that one node of a file became, with `Affine.steps`; and why these are not known, or None."""
    reason = _unknown(node)
    if reason is not None or node.operator in EXACT or node.operator in ("Cast", "CastLike"):
        return list(made), reason
    relus = [i for i, one in enumerate(made) if isinstance(one, Relu)]
    end = relus[0] if node.operator == "HardSigmoid" and relus else len(made)
    found = list[Node]()
    for i, one in enumerate(made):
        if isinstance(one, Affine) and one.terms and not _moves(one) and i < end:
            summands = sum(_products(linear) for _, linear in one.terms) + len(one.terms) + 1
            one = replace(one, steps=2 if node.operator in SLOPES else summands + EXTRA)
        found.append(one)
    return found, None if found == list(made) or node.operator in SUMS | SLOPES else "its rounding is not known"


def _moves(node: Affine) -> bool:
    return node.bias is None and len(node.terms) == 1 and isinstance(node.terms[0][1], Gather)


def _products(linear: Map) -> int:
    """The most products that an entry of the result adds up."""
    if isinstance(linear, Product):
        return int(linear.weight.shape[2])
    return len(linear.forward[0]) if isinstance(linear, Sparse) else 1


def _unknown(node: OnnxNode) -> str | None:
    """Why it is not known what float32 makes of an operator; None where it is."""
    constants = [value for value in node.inputs if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
    if not any(isinstance(value, Tensor) for value in node.inputs):
        return None
    if any(value.dtype != np.float32 for value in constants):
        return "it reads numbers that are no float32"
    if node.operator == "CastLike" or (node.operator == "Cast" and node.get("to") != onnx.TensorProto.FLOAT):
        return "a cast may change the precision"
    if node.operator not in SUMS:
        return None
    if any(np.abs(value).max(initial=0.0) > LARGEST for value in constants):
        return "a constant is too large"
    for name in ("alpha", "beta") if node.operator in ("Gemm", "HardSigmoid") else ():
        size = abs(float(node.get(name, 1.0)))
        if size > LARGEST_FACTOR or 0 < size < 1 / LARGEST_FACTOR:
            return f"{name} is out of range"
    if node.operator == "Div" and np.abs(node.constant(1)).min(initial=1.0) < 1 / LARGEST:
        return "a divisor is too small"
    if node.operator == "BatchNormalization":
        variance = node.constant(4).astype(np.float64) + float(np.float32(node.get("epsilon", 1e-5)))
        inside = (variance >= VARIANCES[0]) & (variance <= VARIANCES[1])
        if not inside.all() or np.abs(node.constant(1)).max(initial=0.0) > LARGEST_FACTOR:
            return "a variance or a scale is out of range"
    return None


def rounded(network: Network) -> Network:
    """The network whose values are those of float32 evaluations. Raises RejectedError where these are not known."""
    if network.unrounded is not None:
        raise RejectedError(f"it is about float32, of which nothing is known here: {network.unrounded}")
    nodes, output, reads = list(network.nodes), network.output, list(network.reads)
    reads[output.node] += 1
    last = nodes[output.node]
    if not isinstance(last, Affine) or not last.steps:  # what flushes numbers to zero may do so in the output
        nodes.append(Affine(last.size, ((output.node, Gather(np.arange(last.size), last.size)),), steps=1))
        output, reads = Tensor(len(nodes) - 1, output.shape), [*reads, 1]
    affine = {source for node in nodes if isinstance(node, Affine) for source in sources(node)}
    for k, node in enumerate(nodes):
        if isinstance(node, Affine):
            below = (nodes[source] for source in sources(node))
            inner = max((one.roundings for one in below if isinstance(one, Affine) and one.open), default=0)
            count = node.steps + inner
            nodes[k] = replace(node, roundings=count, open=count > 0 and reads[k] == 1 and k in affine)
    return replace(network, nodes=nodes, output=output)


def deviation(network: Network, lower: Sequence[Array], upper: Sequence[Array], k: int) -> Array | None:
    """How far the value (size, columns) of affine node k may be from its expression, where the values that it reads lie
    between these bounds; None for nothing."""
    node, arithmetic = network.nodes[k], network.arithmetic
    if not isinstance(node, Affine) or node.open or not node.roundings:
        return None
    if node.roundings >= 2**20:
        raise RejectedError("a sum has too many summands for float32")
    total, lost, _ = _block(network, lower, upper, k)
    relative = arithmetic.above(Fraction(node.roundings, 2**24 - node.roundings))
    found = (relative * total + lost) * (1 + arithmetic.gamma(64)) + arithmetic.floor
    held = ((total <= LARGEST) & (lost <= LARGEST)).astype(bool)
    if arithmetic.exact and not held.all():
        raise RejectedError("numbers that float32 may not hold")
    return found if arithmetic.exact else np.where(held, found, np.inf)


def _block(network: Network, lower: Sequence[Array], upper: Sequence[Array], k: int) -> tuple[Array, Array, Array]:
    """The block that ends in node k: the sum of absolute values of its products, what underflow loses (both (size,
    columns)), and one plus the sum of all stored values that are read (columns,)."""
    node, arithmetic = network.nodes[k], network.arithmetic
    assert isinstance(node, Affine)
    columns = int(lower[0].shape[1])
    sizes: list[Any] = [None] * k
    losses: list[Any] = [None] * k
    read: Array = arithmetic.zeros((columns,)) + arithmetic.array(1)
    for source in sources(node):
        below = network.nodes[source]
        if isinstance(below, Affine) and below.open:
            sizes[source], losses[source], several = _block(network, lower, upper, source)
            read = read + several
        else:
            sizes[source] = np.maximum(np.abs(lower[source]), np.abs(upper[source])) + arithmetic.array(TINY)
            losses[source] = arithmetic.zeros((below.size, columns))
            read = read + sizes[source].sum(0)
    total = network.affine(node, sizes, columns, absolute=True)
    lost = network.affine(replace(node, bias=None), losses, columns, absolute=True)
    lost = lost + arithmetic.array(LOST * max(1, node.roundings)) * read
    slack = 1 + 4 * arithmetic.gamma(network.roundings[k] + sum(one.size for one in network.nodes[:k]))
    return total * slack, lost * slack, read * slack
