"""Reader of VNN-LIB 2: the official parser checks the file, this module turns its syntax tree into cases.

All inputs of all networks make up the input of the cases, one after another, each flattened in row-major order; what is
asserted about outputs and hidden tensors makes up their output (`Declarations.asked`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import Any

import vnnlib

from mipverify.errors import InputError
from mipverify.specification.cases import Variables, build_cases
from mipverify.specification.declarations import Declarations, Declared, Tensor
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
from mipverify.specification.specification import Case

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
_REAL_TYPES: dict[str, str | None] = {
    "Unknown": None,
    "Real": None,
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}
_SIZES = (8, 16, 32, 64)  # bits
_WHOLE_TYPES: dict[str, str | None] = {
    **{f"I{size}": f"int{size}" for size in _SIZES},
    **{f"U{size}": f"uint{size}" for size in _SIZES},
}
# The native parser recurses; a deeper file could exhaust its stack, which no exception would tell.
_DEEPEST = 400
_MOST_OUTPUTS = 1_000_000
_LONGEST = 300  # message; names are the file's


def parse_vnnlib2(text: str, path: str, assumed: float | None = None) -> tuple[tuple[Case, ...], Declarations]:
    """The cases of a VNN-LIB 2 property, and the networks that it declares; assumed: as in `Variables`.

    Raises:
        InputError: the official parser refuses the file, or the file needs products of variables, or numbers that are
            not real.
    """
    try:
        _check_depth(text)
        query = _parsed(text)
        networks = _networks(query)
        asserted_equal, others = _links([assertion.expr for assertion in query.assertions])
        tensors = _Tensors(networks, asserted_equal)
        asserted = [_boolean(expression, tensors) for expression in others]
        return build_cases(asserted, replace(tensors.variables(), assumed=assumed)), tensors.declarations()
    except vnnlib.VNNLibException as error:
        raise InputError(f"{path}: {shorten(_explain(str(error)), _LONGEST)}") from None
    except InputError as error:
        raise type(error)(f"{path}: {shorten(str(error), _LONGEST)}") from None


def _parsed(text: str) -> Any:
    """The official parser's syntax tree. Raises InputError for what it ends at without a word of its own."""
    try:
        return vnnlib.parse_query_string(text)
    except UnicodeDecodeError:  # it quotes a byte of a character that its grammar does not have
        line = next((k for k, one in enumerate(text.splitlines(), 1) if not one.split(";")[0].isascii()), "?")
        raise InputError(f"line {line}: a character that is none of ASCII, outside of a comment") from None
    except (IndexError, OverflowError):
        raise InputError("a whole number has too many digits") from None


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


def _networks(query: Any) -> tuple[Declared, ...]:
    """The networks as they are declared. Raises InputError for element types that are not real numbers."""
    return tuple(
        Declared(
            network.name,
            tuple(_tensor(definition) for definition in network.inputs),
            tuple(_tensor(definition, "hidden tensor ") for definition in network.hidden),
            tuple(_tensor(definition, "output ") for definition in network.outputs),
            network.equal_to or "",
            network.isometric_to or "",
        )
        for network in query.networks
    )


def _tensor(definition: Any, what: str = "") -> Tensor:
    """A declared tensor; `what` it is, if it has to be of a size that can be verified."""
    name = definition.dtype.name
    types = _REAL_TYPES | _WHOLE_TYPES if what == "output " else _REAL_TYPES
    if name not in types:
        raise InputError(f"{definition.name} has type {name}; only real and float types are supported")
    if what and prod(definition.shape) > _MOST_OUTPUTS:
        raise InputError(f"{what}{definition.name} has {prod(definition.shape)} elements; too many to verify")
    return Tensor(definition.name, tuple(definition.shape), types[name], (definition.onnx_name or "").strip('"'))


def _links(expressions: Sequence[Any]) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """Pairs of inputs that are asserted to be equal, and all other assertions."""
    pairs, others, left = [], [], list(reversed(expressions))
    while left:
        expression = left.pop()
        if isinstance(expression, vnnlib.And):
            left += reversed(expression.children())
        elif isinstance(expression, vnnlib.Equal) and all(map(_is_input, (expression.lhs, expression.rhs))):
            pairs.append((expression.lhs, expression.rhs))
        else:
            others.append(expression)
    return pairs, others


def _is_input(node: Any) -> bool:
    return isinstance(node, vnnlib.Var) and node.kind == vnnlib.SymbolKind.Input


class _Tensors:
    """The declared tensors and where their elements stand among the flat variables.

    Inputs have their places from the start. Outputs and hidden tensors get theirs when they are first asserted about,
    so that nothing is asked of the others. Inputs that are asserted to be equal are one variable.
    """

    def __init__(self, networks: tuple[Declared, ...], equal: Sequence[tuple[Any, Any]] = ()) -> None:
        self._networks = networks
        self._inputs: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._shapes = {t.name: t.shape for network in networks for t in (*network.hidden, *network.outputs)}
        self._asked: dict[str, int] = {}
        self._count = self._asked_count = 0
        for network in networks:
            for tensor in network.inputs:
                self._inputs[tensor.name] = (self._count, tensor.shape)
                self._count += prod(tensor.shape)
        self._places = self._joined(equal) if equal else None
        if self._places is not None:
            self._count = max(self._places) + 1

    def _joined(self, equal: Sequence[tuple[Any, Any]]) -> tuple[int, ...]:
        """For each element of the inputs the variable that it is."""
        if self._count > _MOST_OUTPUTS:
            raise InputError(f"the inputs have {self._count} elements; too many to verify")
        roots = list(range(self._count))

        def root(element: int) -> int:
            while roots[element] != element:
                roots[element] = element = roots[roots[element]]
            return element

        for left, right in equal:
            one, two = sorted((root(self._element(left)), root(self._element(right))))
            roots[two] = one
        numbers: dict[int, int] = {}
        return tuple(numbers.setdefault(root(element), len(numbers)) for element in range(self._count))

    def _element(self, node: Any) -> int:
        start, shape = self._inputs[node.name]
        return start + _flat(node, shape)

    def variable(self, node: Any) -> int:
        """Input element i as i, output element j as -1 - j."""
        if node.name in self._inputs:
            element = self._element(node)
            return element if self._places is None else self._places[element]
        return -1 - self._start(node.name) - _flat(node, self._shapes[node.name])

    def _start(self, name: str) -> int:
        start = self._asked.get(name)
        if start is None:
            start = self._asked[name] = self._asked_count
            self._asked_count += prod(self._shapes[name])
        return start

    def name(self, index: int) -> str:
        """How the file calls an input, given its place among the flat inputs; the first one of those that are equal."""
        if self._places is not None:
            index = self._places.index(index)
        name, (start, shape) = next(one for one in reversed(self._inputs.items()) if one[1][0] <= index)
        index -= start
        indices = []
        for size in reversed(shape):
            indices.append(index % size)
            index //= size
        return f"{name}[{','.join(map(str, reversed(indices)))}]" if indices else name

    def declarations(self) -> Declarations:
        """The networks, and which of their tensors the outputs are; call it once all assertions are read."""
        return Declarations(self._networks, tuple(self._asked), self._places)

    def variables(self) -> Variables:
        if not self._asked:  # a property of inputs alone: some output has to be there
            self._start(self._networks[0].outputs[0].name)
        return Variables(self._count, self._asked_count, self.name, inputs_alone=True)


def _flat(node: Any, shape: Sequence[int]) -> int:
    """The place of an element in its tensor. Raises InputError for negative indices, which the parser lets pass."""
    flat = 0
    for index, size in zip(node.indices, shape, strict=True):
        if not 0 <= index < size:
            place = ",".join(map(str, node.indices))
            raise InputError(
                f"line {node.line}: {node.name}[{place}] is no element: {index} is none of 0 to {size - 1}"
            )
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
