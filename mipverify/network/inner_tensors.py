"""The inner tensors of a file against the nodes of the network that was read from it, one after another.

Each node is evaluated at what ONNX Runtime has for the tensors that it reads, so that errors do not add up from layer
to layer, and a reading that is wrong anywhere shows where it is wrong.
"""

from __future__ import annotations

import numpy as np

from mipverify.errors import InputError
from mipverify.network.graph import Affine, Network, Relu, affine_value
from mipverify.network.replay import OnnxRuntimeReplay
from mipverify.network.rounding_error import node_error

ENTRIES = 2**22  # of all nodes together at the points that are compared at once


def replay_of_tensors(network: Network) -> OnnxRuntimeReplay | None:
    """The file of a network, which gives the inner tensors that are compared; None where there are none."""
    if not network.tensors or network.file is None:
        return None
    return OnnxRuntimeReplay(network.file, [name for name, _ in network.tensors])


def compare_tensors(
    network: Network, points: np.ndarray, around: np.ndarray, replay: OnnxRuntimeReplay | None = None
) -> None:
    """Raise InputError that names the first tensor whose value at a point is not that of its node.

    points: (P, n), of the input set. A tensor that is NaN or infinite there is refused: beyond the range of its type,
    what the file computes is not the real-valued function that is verified, whatever later layers make of it.
    around: (R, n), others, of which those are left out where some tensor is NaN or infinite.
    A network that comes from no file has no tensors to compare. replay: of these tensors, if it is at hand.
    """
    replay, names = replay or replay_of_tensors(network), [name for name, _ in network.tensors]
    if replay is None:
        return
    size = sum(int(np.prod(node.shape)) for node in network.nodes)
    each = max(1, ENTRIES // size)
    for inside, group in ((True, points), (False, around)):
        for part in (group[start : start + each] for start in range(0, len(group), each)):
            runs = [[np.asarray(t, np.float64).reshape(-1) for t in replay.tensors(x, names)] for x in part]
            finite = np.array([[bool(np.isfinite(t).all()) for t in run] for run in runs])
            if inside and not finite.all():
                name, at = network.tensors[int(np.flatnonzero(~finite.all(axis=0))[0])]
                raise InputError(
                    f"{network.path}: tensor {name!r} (node {network.names[at]!r}) is NaN or infinite in ONNX Runtime "
                    "at an input of the set"
                )
            kept = np.asarray(finite.all(axis=1))
            known = [run for run, good in zip(runs, kept, strict=True) if good]
            if known:
                _compare(network, part[kept], [list(rows) for rows in zip(*known, strict=True)])


def _compare(network: Network, points: np.ndarray, tensors: list[list[np.ndarray]]) -> None:
    """tensors: for each of `network.tensors` its flat value at each point."""
    given: dict[int, list[tuple[str, list[np.ndarray]]]] = {}
    for (name, at), rows in zip(network.tensors, tensors, strict=True):
        given.setdefault(at, []).append((name, rows))
    values: list[np.ndarray] = []
    errors: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    x = points.astype(np.float64).reshape(len(points), *network.input_shape)
    for index, node in enumerate(network.nodes):
        if isinstance(node, Affine):
            value, error = affine_value(node, values or [x]), node_error(node, sizes, errors, network.double, x)
        elif isinstance(node, Relu):
            shape = (len(x), *node.shape)
            value, error = np.maximum(values[node.source], 0).reshape(shape), errors[node.source].reshape(shape)
        else:
            value, error = x, np.zeros_like(x)
        for name, rows in given.get(index, ()):
            _require_equal(network, index, name, rows, value, error)
        if index in given:
            value, error = np.stack(given[index][0][1]).reshape(value.shape), np.zeros_like(error)
        values.append(value)
        errors.append(error)
        sizes.append(np.abs(value))


def _require_equal(
    network: Network, index: int, name: str, rows: list[np.ndarray], value: np.ndarray, error: np.ndarray
) -> None:
    where = f"{network.path}: what was read is not what runs: tensor {name!r} (node {network.names[index]!r})"
    read, allowed = value.reshape(len(value), -1), error.reshape(len(error), -1)
    if any(len(row) != read.shape[1] for row in rows):
        raise InputError(f"{where} has {len(rows[0])} entries in ONNX Runtime and {read.shape[1]} as read")
    run, allowed = np.stack(rows), np.broadcast_to(allowed, read.shape)
    wrong = ~(np.abs(run - read) <= allowed)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        raise InputError(
            f"{where}: entry {at[1]} is {run[at]:.9g} in ONNX Runtime and {read[at]:.9g} as read, of which "
            f"rounding explains {allowed[at]:.3g}"
        )
