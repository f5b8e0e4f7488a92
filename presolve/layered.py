"""Networks whose pre-activations are dense maps of the input and of all units before them, as `reduce` makes them.

Most time of branch and bound goes into ascents over batches of nodes of such networks, whose layers have some dozens of
units: there a walk over the graph costs more than its products. Here all units stand one below the other, in float32,
and rows are columns: layers are slices, and what concerns all units at once is one operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from mipverify.presolve.products import Product

from mipverify.network import Affine, Network, Relu
from mipverify.network.operators import Dense, Index, parameter_like
from mipverify.proof.cuts import LayerCuts


@dataclass(frozen=True, eq=False)
class Layered:
    """z = inputs @ x + units @ y + bias for all pre-activations z (N,), up to error_bound (N,).

    relus: the ReLU node of each layer. begin: where the units of each layer begin, and N. inputs (N, n), units (N, N):
    a row reads units of earlier layers only. seen: by node that holds the input and the first units, how many of them.
    cuts: those that most ascents are made with, put together once.
    """

    relus: tuple[int, ...]
    begin: tuple[int, ...]
    inputs: np.ndarray
    units: np.ndarray
    bias: np.ndarray
    error_bound: np.ndarray
    seen: Mapping[int, int]
    cuts: CutColumns | None = None

    @staticmethod
    def of(network: Network, dtype: type = np.float32) -> Layered | None:
        """The layers of a network, None if it is not of that form."""
        size, like = network.input_size, np.zeros(0)
        relus: list[int] = []
        begin, seen = [0], {0: 0}
        maps: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # by pre-activation: weights over what it reads, and bias
        for index, node in enumerate(network.nodes[1:], 1):
            if isinstance(node, Relu):
                if node.source not in maps:
                    return None
                relus.append(index)
                begin.append(begin[-1] + len(maps[node.source][1]))
            elif not isinstance(node, Affine):
                return None
            elif len(node.terms) == 1 and isinstance(node.terms[0].operator, Dense):
                if node.terms[0].source not in seen or len(node.terms[0].operator.in_shape) != 1:
                    return None
                weight = parameter_like(node.terms[0].operator.weight, like)
                shift = np.zeros(1) if node.bias is None else parameter_like(node.bias, like)
                maps[index] = weight, np.broadcast_to(shift, node.shape).reshape(-1)
            elif node.bias is None and _holds_all(node, [0, *relus], [size + b for b in begin]):
                seen[index] = begin[-1]
            else:
                return None
        count = begin[-1]
        inputs: np.ndarray = np.zeros((count, size), dtype)
        units: np.ndarray = np.zeros((count, count), dtype)
        bias: np.ndarray = np.zeros(count, dtype)
        error_bound: np.ndarray = np.zeros(count, dtype)
        for layer, relu in enumerate(relus):
            weight, own = maps[network.relu_source(relu)]
            here = slice(begin[layer], begin[layer + 1])
            inputs[here], bias[here] = weight[:, :size], own
            units[here, : weight.shape[1] - size] = weight[:, size:]
            node = network.nodes[network.relu_source(relu)]
            if isinstance(node, Affine) and node.error_bound is not None:
                error_bound[here] = np.asarray(node.error_bound).reshape(-1)
        return Layered(tuple(relus), tuple(begin), inputs, units, bias, error_bound, seen)

    def with_cuts(self, cuts: Mapping[int, LayerCuts]) -> Layered:
        """The same, ready for ascents with these cuts."""
        if any(own.source not in self.seen for own in cuts.values()):
            return self
        return replace(self, cuts=CutColumns.of(self, cuts, len(self.relus)))

    def columns(self, cuts: Mapping[int, LayerCuts], layers: int) -> CutColumns:
        """Cuts of the first `layers` layers, one below the other."""
        if self.cuts is not None and layers == len(self.relus) and self.cuts.given == cuts:
            return self.cuts
        return CutColumns.of(self, cuts, layers)

    @cached_property
    def over_inputs(self) -> tuple[Product, ...]:
        """By layer, what its units read of the input."""
        return tuple(Product.of(self.inputs[self.layer(index)]) for index in range(len(self.relus)))

    @cached_property
    def over_units(self) -> tuple[Product, ...]:
        """By layer, what its units read of those before."""
        layers = range(len(self.relus))
        return tuple(Product.of(self.units[self.layer(index), : self.begin[index]]) for index in layers)

    def layer(self, index: int) -> slice:
        """The units of a layer."""
        return slice(self.begin[index], self.begin[index + 1])

    def column(self, arrays: Mapping[int, np.ndarray], layers: int) -> np.ndarray:
        """Arrays by ReLU node (R, *shape), zero where there is none, of the first `layers` layers: (units, R).

        Some may have a batch axis of 1, which all rows share.
        """
        count = max((len(array) for array in arrays.values()), default=1)
        found = np.zeros((self.begin[layers], count), np.float32)
        for index in range(layers):
            if self.relus[index] in arrays:
                own = arrays[self.relus[index]]
                found[self.layer(index)] = own.reshape(len(own), -1).T
        return found


@dataclass(frozen=True, eq=False)
class CutColumns:
    """All cuts of some layers one below the other: y[unit] - inputs @ x - units @ y - step * a[unit] <= limit.

    given: the cuts by ReLU node. begin: where those of each layer begin. unit, step, limit: (T,). over_inputs: by
    layer, what its cuts read of the input (n); over_units: of the units of earlier layers. sums: by layer, the matrix
    that adds up values over the cuts of each unit.
    """

    given: Mapping[int, LayerCuts]
    begin: tuple[int, ...]
    unit: np.ndarray
    step: np.ndarray
    limit: np.ndarray
    over_inputs: tuple[Product, ...]
    over_units: tuple[Product, ...]
    sums: tuple[Product, ...]

    @staticmethod
    def of(layered: Layered, cuts: Mapping[int, LayerCuts], layers: int) -> CutColumns:
        """The cuts of the first `layers` layers; their sources are among `layered.seen`."""
        import scipy.sparse

        relus = layered.relus[:layers]
        counts = [len(cuts[relu]) if relu in cuts else 0 for relu in relus]
        begin = (0, *np.cumsum(counts, dtype=int).tolist())
        size = layered.inputs.shape[1]
        unit, (step, limit) = np.zeros(begin[-1], int), np.zeros((2, begin[-1]), np.float32)
        over_inputs, over_units, sums = [], [], []
        for index, relu in enumerate(relus):
            before, width = layered.begin[index], layered.begin[index + 1] - layered.begin[index]
            own = cuts.get(relu)
            here = slice(begin[index], begin[index + 1])
            matrix: Any = scipy.sparse.csc_array((0, size + before), dtype=np.float32)
            sum_up = scipy.sparse.csr_array((width, 0), dtype=np.float32)
            if own is not None:
                unit[here], step[here], limit[here] = before + own.units, own.step, own.limit
                matrix = scipy.sparse.csc_array(own.matrix)
                sum_up = scipy.sparse.csr_array(
                    (np.ones(len(own), np.float32), (own.units, np.arange(len(own)))), (width, len(own))
                )
            over_inputs.append(Product.of(matrix[:, :size]))
            over_units.append(Product.of(matrix[:, size:]))
            sums.append(Product.of(sum_up))
        return CutColumns(cuts, begin, unit, step, limit, tuple(over_inputs), tuple(over_units), tuple(sums))

    def layer(self, index: int) -> slice:
        """The cuts of a layer."""
        return slice(self.begin[index], self.begin[index + 1])


def _holds_all(node: Affine, sources: list[int], ends: list[int]) -> bool:
    """Whether an affine node holds the values of some nodes, one after the other up to these ends, and nothing else."""
    if [term.source for term in node.terms] != sources or node.shape != (ends[-1],):
        return False
    for term, begin, end in zip(node.terms, [0, *ends], ends, strict=False):
        if not isinstance(term.operator, Index):
            return False
        expected = np.full(ends[-1], -1)
        expected[begin:end] = np.arange(end - begin)
        if not np.array_equal(term.operator.indices, expected):
            return False
    return node.error_bound is None
