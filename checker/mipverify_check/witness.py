"""A counterexample, replayed by ONNX Runtime on the file itself, and in rational numbers on what was read of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from mipverify_check import onnx_file, operators
from mipverify_check.arithmetic import EXACT
from mipverify_check.container import rational
from mipverify_check.errors import BadInputError, RejectedError
from mipverify_check.question import read_property
from mipverify_check.vnnlib import Clause

MOST_WORK = 10**8  # numbers moved, for an evaluation in rational numbers


def replay(witness: bytes, network_path: str, property_path: str | None) -> str:
    """What a counterexample `((X_0 v) … (Y_0 v) …)` has been verified to show. Its Y are computed anew.

    Raises RejectedError where ONNX Runtime meets no condition there, or the point lies outside of the set.
    """
    if property_path is None:
        raise BadInputError("name the VNN-LIB property that the counterexample violates")
    file = onnx_file.read(network_path)
    network = operators.lowered(file, EXACT)
    asked, _ = read_property(property_path, network)
    point = _point(witness, asked.inputs)
    outputs = _by_onnx_runtime(network_path, file, [float(v) for v in point])
    if len(outputs) != asked.outputs:
        raise BadInputError(f"{network_path}: gives a class, and no scores that the property could be evaluated on")
    met = [i for i, own in enumerate(asked.clauses) if _meets(asked.common + own, point, outputs)]
    if not met:
        raise RejectedError("the property is not violated at this input by ONNX Runtime's outputs, or it is outside")
    claim = f"ONNX Runtime meets clause {met[0]} of {property_path} at this input"
    if network.monotone or sum(node.size for node in network.nodes) > MOST_WORK:
        return f"{claim}; the real-valued function was not evaluated"
    values = network.values(np.array(point, dtype=object)[:, None])[network.output.node][:, 0]
    too = any(_meets(asked.common + own, point, values) for own in asked.clauses)
    return f"{claim}; so {'does' if too else 'does not'} the real-valued function, in exact arithmetic"


def _point(witness: bytes, size: int) -> list[Fraction]:
    text = witness.decode("utf-8", "replace")
    found = {int(i): rational(value) for i, value in re.findall(r"\(\s*X_(\d{1,9})\s+([^\s()]+)\s*\)", text)}
    if set(found) != set(range(size)):
        raise RejectedError(f"it gives {len(found)} inputs (X_i v) instead of {size}")
    if any(abs(v) >= 2**1000 for v in found.values()):
        raise RejectedError("it gives an input of 2^1000 or beyond")
    return [found[i] for i in range(size)]


def _by_onnx_runtime(path: str, file: onnx_file.OnnxFile, point: Sequence[float]) -> Sequence[Fraction]:
    """The outputs on the file's bytes, exactly."""
    try:
        import onnxruntime
    except ImportError:
        raise BadInputError("a counterexample is replayed by ONNX Runtime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        # By its path, if that can be: weights in other files lie beside it.
        source = onnx_file.read_file(path)[1] if path.endswith(".gz") else path
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        kind = np.float64 if session.get_inputs()[0].type == "tensor(double)" else np.float32
        given = np.array(point).astype(kind).reshape(file.input_shape)
        values = np.asarray(session.run(None, {file.input_name: given})[0]).reshape(-1)
        return [Fraction(float(v)) for v in values]
    except Exception as error:  # noqa: BLE001  # ONNX Runtime has an exception for each of its states
        raise BadInputError(f"{path}: ONNX Runtime cannot run it: {error}") from None


def _meets(clause: Clause, point: Sequence[Fraction], outputs: Sequence[Fraction] | Mapping[int, Fraction]) -> bool:
    """Whether all rows of a clause hold."""
    for row in clause:
        total = row.constant + sum(v * (point[k] if k >= 0 else outputs[-1 - k]) for k, v in row.key)
        if total > 0 or (row.strict and total == 0):
            return False
    return True
