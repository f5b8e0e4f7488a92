"""The check of counterexamples of properties of version 2, which the official parser reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Any

from mipverify.benchmark.check import WrongWitnessError, exact, number, rounded
from mipverify.errors import InputError

_HEAD = re.compile(r"(\S+)\s+(\S+)\s+\[([0-9,\s]*)\]")


def check_version_2(networks: Sequence[tuple[str, Path]], text: str, witness: str) -> bool:
    """Whether an assignment meets all assertions, its outputs replaced by what ONNX Runtime computes."""
    import vnnlib

    query = vnnlib.parse_query_string(text)
    assigned = _assigned(query, witness)
    files = _files(query, networks)
    known = {tensor.name: assigned[tensor.name] for network in query.networks for tensor in network.inputs}
    for network in query.networks:
        known |= _computed(network, files[network.name], known)
    shapes = {tensor.name: tuple(tensor.shape) for network in query.networks for tensor in _tensors(network)}
    return all(_holds(assertion.expr, known, shapes) for assertion in query.assertions)


def _tensors(network: Any) -> tuple[Any, ...]:
    return (*network.inputs, *network.hidden, *network.outputs)


def _assigned(query: Any, witness: str) -> dict[str, list[Fraction]]:
    """The decimals of each variable; they have to come in the order of the declarations."""
    lines = [line.strip() for line in witness.splitlines() if line.strip()]
    found: dict[str, list[Fraction]] = {}
    at = 0
    for network in query.networks:
        for tensor in _tensors(network):
            head = _HEAD.fullmatch(lines[at]) if at < len(lines) else None
            if head is None or head[1] != tensor.name:
                raise WrongWitnessError(f"the witness has no {tensor.name} where it belongs")
            shape = [int(size) for size in head[3].split(",") if size.strip()]
            if shape != list(tensor.shape):
                raise WrongWitnessError(f"the witness has {tensor.name} of shape {shape}, not {list(tensor.shape)}")
            values = lines[at + 1 : at + 1 + prod(shape)]
            if len(values) < prod(shape):
                raise WrongWitnessError(f"the witness ends within {tensor.name}")
            found[tensor.name] = [number(value) for value in values]
            at += 1 + len(values)
    if at < len(lines):
        raise WrongWitnessError(f"the witness has {lines[at][:40]!r} behind its end")
    return found


def _files(query: Any, networks: Sequence[tuple[str, Path]]) -> dict[str, Path]:
    given = dict(networks)
    files: dict[str, Path] = {}
    for network in query.networks:
        path = given.get(network.name, given.get("") if not network.equal_to else None)
        files[network.name] = path or files[network.equal_to]
    return files


def _computed(network: Any, path: Path, known: dict[str, list[Fraction]]) -> dict[str, list[Fraction]]:
    """Outputs and hidden tensors of a network at the inputs that are known."""
    import onnxruntime
    from onnx.helper import make_empty_tensor_value_info

    from mipverify.network.model_file import read_model
    from mipverify.network.onnx_reader import inlined

    model = inlined(read_model(path)[0], path)
    hidden = [tensor.onnx_name.strip('"') for tensor in network.hidden]
    own = [output.name for output in model.graph.output]
    have = {output.name for output in model.graph.output}
    model.graph.output.extend(make_empty_tensor_value_info(name) for name in dict.fromkeys(hidden) if name not in have)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()
    if (len(given), len(own)) != (len(network.inputs), len(network.outputs)):
        raise WrongWitnessError(
            f"{path}: has {len(given)} inputs and {len(own)} outputs, which is not what is declared"
        )
    fed = {}
    for declared, tensor in zip(given, network.inputs, strict=True):
        sizes = [size if isinstance(size, int) and size > 0 else 1 for size in declared.shape]
        shape = list(tensor.shape) if len(sizes) == len(tensor.shape) else sizes
        fed[declared.name] = rounded(known[tensor.name], declared.type).reshape(shape)
    values = session.run([*own, *hidden], fed)
    names = [tensor.name for tensor in (*network.outputs, *network.hidden)]
    return {name: exact(value) for name, value in zip(names, values, strict=True)}


def _holds(node: Any, known: dict[str, list[Fraction]], shapes: dict[str, tuple[int, ...]]) -> bool:
    kind = type(node).__name__
    if kind in ("And", "Or"):
        parts = (_holds(child, known, shapes) for child in node.children())
        return all(parts) if kind == "And" else any(parts)
    left, right = _value(node.lhs, known, shapes), _value(node.rhs, known, shapes)
    relations = {
        "LessEqual": left <= right,
        "LessThan": left < right,
        "GreaterEqual": left >= right,
        "GreaterThan": left > right,
        "Equal": left == right,
        "NotEqual": left != right,
    }
    return relations[kind]


def _value(node: Any, known: dict[str, list[Fraction]], shapes: dict[str, tuple[int, ...]]) -> Fraction:
    kind = type(node).__name__
    if kind == "Var":
        flat = 0
        for index, size in zip(node.indices, shapes[node.name], strict=True):
            if not 0 <= index < size:
                raise InputError(f"{node.name} has no element {list(node.indices)}")
            flat = flat * size + index
        return known[node.name][flat]
    if kind in ("Float", "Int", "IntExpr", "Literal"):
        return number(node.lexeme)
    parts = [_value(child, known, shapes) for child in node.children()]
    if kind == "Plus":
        return sum(parts, Fraction(0))
    if kind in ("Minus", "Negate"):
        return parts[0] - sum(parts[1:], Fraction(0)) if len(parts) > 1 else -parts[0]
    if kind == "Multiply":
        product = Fraction(1)
        for part in parts:
            product *= part
        return product
    raise InputError(f"the property has {kind}, which is not checked here")
