"""Networks over parameters: inputs that are an affine function of a few numbers, possibly clipped (`map` of a case)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mipverify_check.builder import Builder
from mipverify_check.container import Proof, integer, record
from mipverify_check.errors import RejectedError
from mipverify_check.maps import Gather, Map
from mipverify_check.network import Affine, Input, Network, Relu, Tensor

MOST_ENTRIES = 2**24  # of a map's matrices, which are held dense


@dataclass(frozen=True)
class ParameterMap:
    """x = clip(matrix @ p + offset) (n,) of parameters p (size,); with noise, x = clip(clip(matrix @ p + offset) +
    noise @ p). clip: smallest and largest value, or None."""

    size: int
    matrix: np.ndarray
    offset: np.ndarray
    clip: tuple[float, float] | None
    noise: np.ndarray | None


def read_map(proof: Proof, given: Any, inputs: int) -> ParameterMap:
    """The map of a case to so many inputs. Raises RejectedError."""
    parts = record(given, ("size", "matrix", "offset"), ("clip", "noise"))
    size = integer(parts["size"], MOST_ENTRIES // max(1, inputs) + 1)
    offset = proof.array(parts["offset"], (inputs,), "f").astype(np.float64)
    clip = None
    if "clip" in parts:
        low, high = proof.array(parts["clip"], (2,), "f").astype(np.float64).tolist()
        if not low < high:
            raise RejectedError("a map clips to nothing")
        clip = low, high
    noise = _matrix(proof, parts["noise"], inputs, size) if "noise" in parts else None
    return ParameterMap(size, _matrix(proof, parts["matrix"], inputs, size), offset, clip, noise)


def _matrix(proof: Proof, given: Any, rows: int, columns: int) -> np.ndarray:
    """A matrix of which the entries are given that are not zero."""
    parts = record(given, ("rows", "columns", "values"))
    row = proof.array(parts["rows"], (None,), "iu", rows)
    column = proof.array(parts["columns"], (len(row),), "iu", columns)
    values = proof.array(parts["values"], (len(row),), "f").astype(np.float64)
    if len(np.unique(row * max(1, columns) + column)) != len(row) or (np.abs(values) < 2.0**-900).any():
        raise RejectedError("a matrix names an entry twice, or one that is out of range")
    found = np.zeros((rows, columns))
    found[row, column] = values
    return found


def over_parameters(network: Network, given: ParameterMap) -> Network:
    """The network as a function of the parameters; the ReLUs that clip belong to the tensor ""."""
    builder, n = Builder(network.arithmetic, [Input(given.size)]), network.nodes[0].size
    parameters = Tensor(0, (given.size,))

    def term(matrix: np.ndarray) -> tuple[Tensor, Map]:
        return parameters, builder.matrix(parameters, matrix, np.arange(given.size).reshape(-1, 1))

    def whole(x: Tensor, sign: int = 1) -> tuple[Tensor, Map]:
        return x, Gather(np.arange(n), n) if sign == 1 else builder.scaled(x, -builder.arithmetic.array(1))

    def clipped(x: Tensor) -> Tensor:
        """low + relu(x - low) - relu(x - high)"""
        if given.clip is None:
            return x
        low, high = given.clip
        above, beyond = (builder.relu(builder.affine((n,), [whole(x)], np.full(n, -limit))) for limit in (low, high))
        return builder.affine((n,), [whole(above), whole(beyond, -1)], np.full(n, low))

    x = clipped(builder.affine((n,), [term(given.matrix)], given.offset))
    if given.noise is not None:
        x = clipped(builder.affine((n,), [whole(x), term(given.noise)]))
    nodes, shift = list(builder.nodes), x.node  # which is the last one
    for node in network.nodes[1:]:
        if isinstance(node, Affine):
            nodes.append(replace(node, terms=tuple((source + shift, linear) for source, linear in node.terms)))
        else:
            assert isinstance(node, Relu)
            nodes.append(Relu(node.size, node.source + shift))
    output = Tensor(network.output.node + shift, network.output.shape)
    relus = {name: [k + shift for k in layers] for name, layers in network.relus.items()}
    tensors = {name: Tensor(t.node + shift, t.shape) for name, t in network.tensors.items()}
    return replace(network, nodes=nodes, output=output, tensors=tensors, relus={**relus, "": list(builder.made)})
