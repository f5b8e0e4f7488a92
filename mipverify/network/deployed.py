"""The network as a float32 runtime evaluates it: how many roundings may lie between its values and the exact ones.

Affine nodes between inputs, ReLUs and values that are read more than once form *blocks*, which are multiplied out: what
a runtime does with a block is a sum of products of stored values with weights, in which no product takes part in more
than so many roundings, whatever is fused, folded or reordered. docs/proofs.md, section 6, derives what follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mipverify.errors import InputError
from mipverify.network.builder import Comparison
from mipverify.network.compose import ComposedModel
from mipverify.network.convolution import Conv
from mipverify.network.graph import Affine, Network, Node, Rounded, Term, sources
from mipverify.network.operators import Dense, Identity, Index, Operator

if TYPE_CHECKING:
    from mipverify.network.rewrites import OnnxNode

_EXACT = (
    "Abs CenterCropPad Clip Compress Concat DepthToSpace Dropout Expand Flatten Gather GatherElements GatherND "
    "GlobalMaxPool Identity Max MaxPool Min Neg Pad ReduceMax ReduceMin Relu Reshape ReverseSequence Shape Size Slice "
    "SpaceToDepth Split Squeeze ThresholdedRelu Tile Transpose Trilu Unsqueeze"
)
_SUMS = (
    "Add AveragePool BatchNormalization Conv ConvTranspose Div Gemm GlobalAveragePool GlobalLpPool HardSigmoid LpPool "
    "MatMul Mean Mul ReduceL1 ReduceMean ReduceSum Shrink Sub Sum"
)
EXACT = frozenset(_EXACT.split())  # their results are entries of their operands, or those with another sign
SUMS = frozenset(_SUMS.split())  # of products, each rounded no more often than there are summands and EXTRA
SLOPES = frozenset(("LeakyRelu", "PRelu"))  # one product

ARITHMETICS = ("real", "float32")
EXTRA = 8  # roundings of one operator beyond its sums: quotients, roots and products of constants, scales, offsets
LARGEST = 2.0**60  # of weights: then nothing overflows that lies between them and bounds of values
LARGEST_FACTOR = 2.0**20  # of factors that an operator may apply before or after its sums
VARIANCES = 2.0**-80, 2.0**80  # whose roots and quotients stay within float32
_FLOAT = 1  # onnx.TensorProto.FLOAT


def steps_of(node: OnnxNode, made: Sequence[Node]) -> tuple[list[int], str | None]:
    """Roundings of each of the nodes that one node of a file became, or why they are not known."""
    if any(isinstance(value, Comparison) for value in node.inputs):
        return [0] * len(made), "it chooses by a comparison, which rounding may turn"
    if node.operator == "CastLike" or (node.operator == "Cast" and node.get("to") != _FLOAT):
        return [0] * len(made), "it may change the precision"
    own = [i for i, one in enumerate(made) if isinstance(one, Affine) and not _moves(one)]
    nothing = [0] * len(made)
    if not own or node.operator in EXACT:
        return nothing, None
    if node.operator not in SUMS | SLOPES:
        return nothing, "its rounding is not known"
    reason = _out_of_range(node)
    if reason is not None:
        return nothing, reason
    for i in own:
        affine: Any = made[i]
        nothing[i] = 2 if node.operator in SLOPES else _summands(affine) + EXTRA
        weights = (np.asarray(p) for term in affine.terms for p in term.operator.parameters())
        if any(np.abs(array).max(initial=0.0) > LARGEST for array in weights):
            return nothing, f"a weight is above {LARGEST:g}"
    return nothing, None


def _out_of_range(node: OnnxNode) -> str | None:
    """Why what an operator computes on its way may leave the range of float32, or None."""
    if any(
        np.abs(a).max(initial=0.0) > LARGEST for a in node.inputs if isinstance(a, np.ndarray) and a.dtype.kind == "f"
    ):
        return f"a constant is above {LARGEST:g}"
    for name in ("alpha", "beta") if node.operator in ("Gemm", "HardSigmoid") else ():
        size = abs(float(node.get(name, 1.0)))
        if size > LARGEST_FACTOR or 0 < size < 1 / LARGEST_FACTOR:
            return f"{name} is out of range"
    if node.operator == "BatchNormalization":
        variance = np.asarray(node.constant(4, "var"), np.float64) + float(np.float32(node.get("epsilon", 1e-5)))
        if not ((variance >= VARIANCES[0]) & (variance <= VARIANCES[1])).all():
            return "a variance is out of range"
        if np.abs(node.constant(1, "scale")).max(initial=0.0) > LARGEST_FACTOR:
            return f"a scale is above {LARGEST_FACTOR:g}"
    if node.operator == "Div":
        divisor = np.abs(np.asarray(node.constant(1, "the divisor"), np.float64))
        if divisor.min(initial=1.0) < 1 / LARGEST or divisor.max(initial=0.0) > LARGEST:
            return "a divisor is out of range"
    return None


def _moves(node: Affine) -> bool:
    """Whether every entry of a node is one of its source, or a constant that is as it is in the file."""
    if not node.terms:
        return True
    return len(node.terms) == 1 and node.bias is None and isinstance(node.terms[0].operator, (Identity, Index))


def _summands(node: Affine) -> int:
    """Products and constants that are added up in an entry of a node."""
    return sum(_products(term.operator) for term in node.terms) + len(node.terms) + 1


def _products(operator: Operator) -> int:
    if isinstance(operator, Dense):
        return operator.in_shape[-1]
    return math.prod(operator.weight.shape[1:]) if isinstance(operator, Conv) else operator.terms


def in_arithmetic(network: Network, arithmetic: str) -> Network:
    """The network as it is, for `real`, or as `deployed` makes it, for `float32`. Raises InputError for other names."""
    if arithmetic not in ARITHMETICS:
        raise InputError(f"arithmetic must be {' or '.join(ARITHMETICS)}, not {arithmetic!r}")
    return deployed(network) if arithmetic == "float32" else network


def deployed(network: Network) -> Network:
    """The network with `Affine.rounded` set: bounds of it hold for every float32 evaluation.

    Raises InputError where the roundings of an evaluation are not known, or its output is not what is spoken of.
    """
    if network.arithmetic == "float32":
        return network
    reason = network.unrounded
    if isinstance(network.file, ComposedModel) or network.parameters is not None:
        reason = "it is composed of several parts"
    elif network.double or network.input_type not in (None, "float32"):
        reason = "it computes in float64"
    elif set(network.dropped) - {"ArgMax"}:
        reason = f"its last layer, {network.dropped[0]}, rounds too: verify the network without it"
    if reason is not None:
        raise InputError(f"{network.path or 'the network'}: float32 arithmetic cannot be verified: {reason}")
    nodes, output = list(network.nodes), network.output
    names = list(network.names)
    uses = list(network.use_counts)
    uses[output] += 1
    last = nodes[output]
    if not isinstance(last, Affine) or not last.steps:  # what flushes numbers to zero may do so there, too
        nodes.append(Affine(last.shape, (Term(output, Identity(last.shape)),), steps=1))
        names += [names[output]] if names else []
        uses, output = [*uses, 1], len(nodes) - 1
    by_affine = {term.source for node in nodes if isinstance(node, Affine) for term in node.terms}
    counts = [0] * len(nodes)
    for k, node in enumerate(nodes):
        if not isinstance(node, Affine):
            continue
        open_below = [counts[s] for s in sources(node) if _open(nodes[s])]
        counts[k] = node.steps + max(open_below, default=0)
        nodes[k] = replace(node, rounded=Rounded(counts[k], uses[k] == 1 and k in by_affine and counts[k] > 0))
    return replace(network, nodes=tuple(nodes), output=output, names=tuple(names), arithmetic="float32")


def _open(node: Node) -> bool:
    return isinstance(node, Affine) and node.rounded is not None and node.rounded.open
