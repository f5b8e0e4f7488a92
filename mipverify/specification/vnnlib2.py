"""Reader of VNN-LIB 2: the official parser checks the file, this module turns its syntax tree into cases.

One network with one input and one output is supported; tensors are flattened in row-major order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from fractions import Fraction
from math import prod
from typing import Any

import vnnlib

from mipverify.errors import InputError
from mipverify.specification.cases import Variables, build_cases
from mipverify.specification.exact import no_number, parse_decimal, shorten
from mipverify.specification.normal_form import (
    Bound,
    Dnf,
    Linear,
    comparison,
    conjunction,
    disjunction,
    linear_difference,
    linear_product,
    linear_sum,
)
from mipverify.specification.specification import Case, Tensor

_RELATIONS = {
    vnnlib.LessEqual: "<=",
    vnnlib.LessThan: "<",
    vnnlib.GreaterEqual: ">=",
    vnnlib.GreaterThan: ">",
    vnnlib.Equal: "==",
    vnnlib.NotEqual: "!=",
}
_MIRRORED = {"<=": ">=", "<": ">", ">=": "<=", ">": "<"}
# The parser reports the type Real as Unknown. What each is called in an ONNX file; None where any will do.
_REAL_TYPES = {"Unknown": None, "Real": None, "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
# The native parser recurses; a deeper file could exhaust its stack, which no exception would tell.
_DEEPEST = 400
_MOST_OUTPUTS = 1_000_000
_LONGEST = 300  # message; names are the file's


def parse_vnnlib2(text: str, path: str) -> tuple[tuple[Case, ...], tuple[Tensor, Tensor]]:
    """The cases of a VNN-LIB 2 property, and its input and output as they are declared.

    Raises:
        InputError: the official parser refuses the file, or the file needs several networks, inputs or outputs,
            hidden nodes, or numbers that are not real.
    """
    try:
        _check_depth(text)
        query = vnnlib.parse_query_string(text)
        tensors = _Tensors(query)
        asserted = [_boolean(assertion.expr, tensors) for assertion in query.assertions]
        return build_cases(asserted, tensors.variables()), tensors.declared()
    except vnnlib.VNNLibException as error:
        raise InputError(f"{path}: {shorten(_explain(str(error)), _LONGEST)}") from None
    except InputError as error:
        raise type(error)(f"{path}: {shorten(str(error), _LONGEST)}") from None


def _check_depth(text: str) -> None:
    depth = 0
    for parenthesis in re.finditer(r"[()]", re.sub(r";[^\n]*", "", text)):
        depth += 1 if parenthesis.group() == "(" else -1
        if depth > _DEEPEST:
            raise InputError(f"parentheses are nested deeper than {_DEEPEST}")


def _explain(message: str) -> str:
    """The parser's first complaint in one line."""
    try:
        first = json.loads(message)["errors"][0]
    except (json.JSONDecodeError, KeyError, IndexError, TypeError):
        text = " ".join(message.split())
        # Its grammar has no exponents, which the next reader would not guess from the message.
        return text + " (numbers take no exponent in VNN-LIB 2)" * text.endswith(("'e'", "'E'"))
    words = [str(first[key]) for key in ("message", "offendingSymbol", "hint") if first.get(key)]
    return f"line {first.get('line', '?')}: {': '.join(words)}"


class _Tensors:
    """The declared input and output and where their elements stand among the flat variables."""

    def __init__(self, query: Any) -> None:
        networks = query.networks
        if len(networks) != 1:
            names = ", ".join(network.name for network in networks)
            raise InputError(f"the property is about {len(networks)} networks ({names}); one is supported")
        (network,) = networks
        if network.hidden:
            raise InputError(f"hidden node {network.hidden[0].name} of network {network.name} is not supported")
        for what, declared in (("inputs", network.inputs), ("outputs", network.outputs)):
            if len(declared) != 1:
                names = ", ".join(tensor.name for tensor in declared)
                raise InputError(f"network {network.name} has {len(declared)} {what} ({names}); one is supported")
        self.input, self.output = network.inputs[0], network.outputs[0]
        for tensor in (self.input, self.output):
            if tensor.dtype.name not in _REAL_TYPES:
                raise InputError(f"{tensor.name} has type {tensor.dtype.name}; only real and float types are supported")
        if prod(self.output.shape) > _MOST_OUTPUTS:
            raise InputError(f"output {self.output.name} has {prod(self.output.shape)} elements; too many to verify")
        self.input_name, self.input_shape = self.input.name, tuple(self.input.shape)
        self.output_shape = tuple(self.output.shape)

    def variable(self, node: Any) -> int:
        """Input element i as i, output element j as -1 - j."""
        if node.name == self.input_name:
            return _flat(node.indices, self.input_shape)
        return -1 - _flat(node.indices, self.output_shape)

    def name(self, index: int) -> str:
        """How the file calls an input, given its place among the flat inputs."""
        indices = []
        for size in reversed(self.input_shape):
            indices.append(index % size)
            index //= size
        return f"{self.input_name}[{','.join(map(str, reversed(indices)))}]" if indices else self.input_name

    def declared(self) -> tuple[Tensor, Tensor]:
        """Name, shape and element type of the input and the output."""
        first, second = (Tensor(t.name, tuple(t.shape), _REAL_TYPES[t.dtype.name]) for t in (self.input, self.output))
        return first, second

    def variables(self) -> Variables:
        return Variables(prod(self.input_shape), prod(self.output_shape), self.name)


def _flat(indices: Sequence[int], shape: Sequence[int]) -> int:
    flat = 0
    for index, size in zip(indices, shape, strict=True):
        flat = flat * size + index
    return flat


def _boolean(node: Any, tensors: _Tensors) -> Dnf:
    if isinstance(node, vnnlib.Connective):
        parts = [_boolean(child, tensors) for child in node.children()]
        return conjunction(parts) if isinstance(node, vnnlib.And) else disjunction(parts)
    relation = _RELATIONS[type(node)]
    left, right = node.lhs, node.rhs
    if isinstance(left, vnnlib.Literal) and relation in _MIRRORED:
        left, right, relation = right, left, _MIRRORED[relation]
    if isinstance(left, vnnlib.Var) and isinstance(right, vnnlib.Literal) and relation in _MIRRORED:
        # A bound on one variable, which is what long files consist of.
        variable = tensors.variable(left)
        value = parse_decimal(right.lexeme)
        if value is not None:
            return [[Bound(variable, relation[0] == "<", value, len(relation) == 1)]]
    return comparison(relation, _linear(left, tensors), _linear(right, tensors))


def _linear(node: Any, tensors: _Tensors) -> Linear:
    if isinstance(node, vnnlib.Var):
        return {tensors.variable(node): Fraction(1)}
    if isinstance(node, vnnlib.Literal):
        value = parse_decimal(node.lexeme)
        if value is None:
            raise InputError(f"line {node.line}: {no_number(node.lexeme)}")
        return {None: Fraction(value)}
    parts = [_linear(child, tensors) for child in node.children()]
    if isinstance(node, vnnlib.Plus):
        return linear_sum(parts)
    if isinstance(node, vnnlib.Minus | vnnlib.Negate):
        return linear_difference(parts)
    if isinstance(node, vnnlib.Multiply):
        try:
            return linear_product(parts)
        except InputError as error:
            raise InputError(f"{error}: {str(node).strip()}") from None
    raise InputError(f"expression {node} is not supported")
