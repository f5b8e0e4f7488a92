"""The layers of a network as a table: kinds, shapes, parameters and nonzeros."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mipverify.network.arrays import is_torch_array
from mipverify.network.graph import Affine, Input, Network
from mipverify.network.operators import Array


@dataclass(frozen=True)
class Layer:
    """One node of the network. `kind` names the operators of an affine node, e.g. "Conv + Identity"."""

    index: int
    kind: str
    name: str
    shape: tuple[int, ...]
    parameters: int
    nonzeros: int

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return {**self.__dict__, "shape": list(self.shape)}


@dataclass(frozen=True)
class Description:
    """All layers with their totals; `relus` counts units, `parameters` and `nonzeros` count shared arrays once."""

    layers: tuple[Layer, ...]
    inputs: int
    outputs: int
    relus: int
    parameters: int
    nonzeros: int

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return {**self.__dict__, "layers": [layer.to_json() for layer in self.layers]}


def describe(network: Network) -> Description:
    """The table of `network`. Parameters are weights and biases as stored, not the entries of the unrolled matrices."""
    layers: list[Layer] = []
    everything: list[Array] = []
    for index, node in enumerate(network.nodes):
        arrays: list[Array] = []
        if isinstance(node, Affine):
            kind = " + ".join(type(term.operator).__name__ for term in node.terms) or "Constant"
            arrays = [p for term in node.terms for p in term.operator.parameters()]
            arrays += [] if node.bias is None else [node.bias]
        else:
            kind = "Input" if isinstance(node, Input) else "Relu"
        everything += arrays
        name = network.names[index] if index < len(network.names) else ""
        layers.append(Layer(index, kind, name, node.shape, *_counts(arrays)))
    relus = sum(math.prod(network.nodes[i].shape) for i in network.relus)
    return Description(tuple(layers), network.input_size, network.output_size, relus, *_counts(everything))


def _counts(arrays: Iterable[Array]) -> tuple[int, int]:
    """Entries and nonzero entries of the arrays, each array and each of its entries once."""
    distinct = {id(array): _stored(array) for array in arrays}
    return sum(a.size for a in distinct.values()), sum(int(np.count_nonzero(a)) for a in distinct.values())


def _stored(array: Array) -> np.ndarray:
    """The entries that exist in memory: an axis along which a broadcast array repeats itself counts once."""
    array = array.detach().cpu().numpy() if is_torch_array(array) else array
    return array[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)]
