"""The competition's check of a counterexample, with no tolerance: ONNX Runtime on the original file decides.

The witness is read as it is printed. Its inputs have to meet the property as these decimals, exactly; its outputs are
ignored and replaced by what ONNX Runtime computes at the inputs, rounded to the type of the network. Nothing of the
verifier's own reading of networks and properties takes part, so that neither can hide a fault of the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mipverify.errors import InputError
from mipverify.specification.exact import parse_decimal
from mipverify.specification.files import decoded, read_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

CORRECT = "correct"
Value = Callable[[str], Fraction]

_PAIR = re.compile(r"\(\s*([XY])_([0-9]+)\s+([^\s()]+)\s*\)")
_TOKEN = re.compile(r"[()]|[^\s()]+")
_COMMENT = re.compile(r";[^\n]*")


class WrongWitnessError(InputError):
    """Why a counterexample is none."""


def check_witness(networks: Sequence[tuple[str, Path]], property_path: Path, witness: str) -> str:
    """`correct`, or what is wrong with a counterexample. Raises InputError where network or property cannot be read."""
    text = decoded(read_file(property_path)[0], str(property_path))
    try:
        if "declare-network" in text:
            from mipverify.benchmark.check2 import check_version_2

            met = check_version_2(networks, text, witness)
        else:
            met = _check_version_1(networks[0][1], text, witness)
    except WrongWitnessError as error:
        return str(error)
    return CORRECT if met else "the replayed witness does not meet the property"


def number(text: str) -> Fraction:
    """A printed decimal, exactly."""
    value = parse_decimal(text)
    if value is None:
        raise WrongWitnessError(f"the witness has {text!r}, which is no number")
    return Fraction(value)


def _check_version_1(network: Path, text: str, witness: str) -> bool:
    found: dict[str, list[str]] = {"X": [], "Y": []}
    for kind, index, printed in _PAIR.findall(witness):
        if int(index) != len(found[kind]):
            raise WrongWitnessError(f"the witness has {kind}_{index} where {kind}_{len(found[kind])} belongs")
        found[kind].append(printed)
    inputs = [number(printed) for printed in found["X"]]
    outputs = run_flat(network, [inputs])[0]

    def value(name: str) -> Fraction:
        known, index = (inputs, name[2:]) if name.startswith("X_") else (outputs, name[2:])
        if not index.isdigit() or int(index) >= len(known):
            raise WrongWitnessError(f"the property has {name}, of which the witness says nothing")
        return known[int(index)]

    return satisfied(text, value)


def run_flat(network: Path, inputs: Sequence[Sequence[Fraction]]) -> list[list[Fraction]]:
    """All outputs of a network, each flat, at flat inputs, one list for each of them in the order of the file."""
    import numpy as np

    session = session_of(network)
    given = session.get_inputs()
    if len(given) != len(inputs):
        raise WrongWitnessError(f"the network takes {len(given)} inputs, the witness has {len(inputs)}")
    fed = {}
    for declared, values in zip(given, inputs, strict=True):
        shape = [size if isinstance(size, int) and size > 0 else 1 for size in declared.shape]
        if len(values) != np.prod(shape, dtype=int):
            raise WrongWitnessError(f"the network takes {shape} for {declared.name}, the witness has {len(values)}")
        fed[declared.name] = rounded(values, declared.type).reshape(shape)
    return [exact(output) for output in session.run(None, fed)]


def session_of(network: Path) -> Any:
    """ONNX Runtime on the original file."""
    import onnxruntime

    from mipverify.network.model_file import read_model

    content = read_model(network)[1].content
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # fatal errors alone
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def rounded(values: Sequence[Fraction], kind: str) -> NDArray[Any]:
    """Decimals as the numbers that a network of such a type takes."""
    import numpy as np

    types = {"tensor(double)": np.float64, "tensor(float)": np.float32, "tensor(float16)": np.float16}
    if kind not in types:
        raise WrongWitnessError(f"the network takes {kind}, which is not checked here")
    return np.array([float(value) for value in values]).astype(types[kind])


def exact(array: Any) -> list[Fraction]:
    """The entries of an array in row-major order; raises WrongWitnessError where one is not finite."""
    import numpy as np

    flat = np.asarray(array).reshape(-1)
    if not np.isfinite(flat.astype(np.float64)).all():
        raise WrongWitnessError("the network's output at the witness is not finite")
    return [Fraction(float(value)) for value in flat]


def satisfied(text: str, value: Value) -> bool:
    """Whether all assertions of a property of version 1 are met, given the value of each variable."""
    stack: list[list[Any]] = [[]]
    met = True
    for token in _TOKEN.findall(_COMMENT.sub("", text)):
        if token == "(":
            stack.append([])
        elif token != ")":
            stack[-1].append(token)
        else:
            items = stack.pop()
            if len(stack) > 1:
                stack[-1].append(_evaluated(items, value) if stack[-1] and stack[-1][0] != "declare-fun" else items)
            elif items and items[0] == "assert":
                met = met and bool(items[1])
    return met


def _evaluated(items: list[Any], value: Value) -> Any:
    """A truth value or a number of an expression whose parts are evaluated already."""
    operator, *parts = items
    if operator in ("and", "or"):
        return all(parts) if operator == "and" else any(parts)
    numbers = [part if isinstance(part, Fraction) else _leaf(part, value) for part in parts]
    if operator in _RELATIONS:
        holds = _RELATIONS[operator]
        return all(holds(a, b) for a, b in pairwise(numbers))
    if operator == "+":
        return sum(numbers, Fraction(0))
    if operator == "-":
        return numbers[0] - sum(numbers[1:], Fraction(0)) if len(numbers) > 1 else -numbers[0]
    if operator == "*":
        product = Fraction(1)
        for factor in numbers:
            product *= factor
        return product
    if operator == "/":
        quotient = numbers[0]
        for divisor in numbers[1:]:
            quotient /= divisor
        return quotient
    raise InputError(f"the property has {operator!r}, which is not checked here")


def _leaf(token: str, value: Value) -> Fraction:
    return value(token) if token[0] in "XY" else number(token)


_RELATIONS: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "=": lambda a, b: a == b,
}
