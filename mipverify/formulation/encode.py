"""The MILP of a network over a box, given proven bounds: a binary for each unstable ReLU, none for a stable one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from mipverify.errors import Stopped
from mipverify.formulation.input_rows import SetColumns, confined
from mipverify.formulation.labels import Labels
from mipverify.formulation.milp import Milp
from mipverify.network import Affine, Input, Network, Node, Relu, sources
from mipverify.network.operators import Index
from mipverify.proof.parts import never
from mipverify.specification.linear_system import widened

if TYPE_CHECKING:
    from mipverify.proof.bounds import Bounds
    from mipverify.proof.cuts import LayerCuts

ROUNDOFF = 1.2e-16  # half a unit in the last place, and room for what it multiplies


@dataclass(frozen=True, eq=False)
class ReluColumns:
    """The unstable units of one ReLU layer: flat `units` (U,), their columns of x, y and the binary, each (U,)."""

    units: np.ndarray
    before: np.ndarray
    after: np.ndarray
    binary: np.ndarray


@dataclass(frozen=True, eq=False)
class Encoding:
    """A network's MILP and the way back from its columns.

    milp: objective zero. inputs: columns (n,) of the input. relus: by ReLU node. outputs: the network's output as
    affine expressions, `outputs[0] @ v + outputs[1]`, (k, columns) sparse and (k,). entries: by input, ReLU node, node
    with columns of its own and node that only moves such values, its value as `entries[node] @ v`, (size, columns)
    sparse. labels: what columns and rows stand for. curved: the input set, where the rows are tangents of it only.
    """

    milp: Milp
    inputs: np.ndarray
    relus: dict[int, ReluColumns]
    outputs: tuple[Any, np.ndarray]
    entries: dict[int, Any]
    labels: Labels
    curved: SetColumns | None = None

    @property
    def binaries(self) -> int:
        """Number of integer columns."""
        return int(self.milp.integer.sum())

    def gaps(self, point: np.ndarray) -> np.ndarray:
        """How far a point (columns,) is from the ReLU of each unstable unit, in the order of `with_binaries` (U,)."""
        found = (point[relu.after] - np.maximum(point[relu.before], 0.0) for relu in self.relus.values())
        return np.concatenate([np.zeros(0), *found])

    def with_binaries(self, chosen: np.ndarray) -> Encoding:
        """The program in which only some units (U,) are binary: the others keep the triangle, so that its
        minimum is a lower bound."""
        columns = np.concatenate([np.zeros(0, int), *(relu.binary for relu in self.relus.values())])
        integer = self.milp.integer.copy()
        integer[columns[~chosen]] = False
        return replace(self, milp=replace(self.milp, integer=integer))

    def minimize(self, output: int) -> Milp:
        """The MILP whose optimal value is the smallest value of one output."""
        row = self.outputs[0][[output]].toarray().reshape(-1)
        return self.milp.with_objective(row, float(self.outputs[1][output]))

    def with_tangents(self, point: np.ndarray) -> Encoding | None:
        """The MILP with tangents of its input set that cut off a point (columns,); None if nothing cuts it off."""
        tangents = None if self.curved is None else self.curved.tangents(point)
        if tangents is None:
            return None
        rows, limit = tangents
        return replace(self, milp=self.milp.with_rows(rows, limit, np.full(len(limit), np.inf)))

    def with_cuts(self, layers: Mapping[int, LayerCuts]) -> Encoding:
        """The MILP with rows `y - matrix @ z - step * a <= limit` of unstable units, by ReLU node."""
        milp, width = self.milp, self.milp.columns
        for node, cuts in layers.items():
            relu, count = self.relus[node], len(cuts)
            place = np.searchsorted(relu.units, cuts.units)
            index = np.tile(np.arange(count), 2)
            columns = np.concatenate([relu.after[place], relu.binary[place]])
            own = scipy.sparse.csr_array(
                (np.concatenate([np.ones(count), -cuts.step]), (index, columns)), shape=(count, width)
            )
            rows = own - scipy.sparse.csr_array(cuts.matrix) @ self.entries[cuts.source]
            milp = milp.with_rows(rows, np.full(count, -np.inf), cuts.limit)
        return replace(self, milp=milp)

    def minimize_below(self, output: int, cap: float) -> Milp:
        """The same, over the points where the output is at most `cap`: empty where the minimum is above it.

        The row lets solvers fix columns by propagation, which their own cutoffs do less of.
        """
        milp = self.minimize(output)
        row = scipy.sparse.csr_array(milp.objective[None])
        return milp.with_rows(row, np.array([-np.inf]), np.array([cap - milp.offset]))


class _Builder:
    """Columns and rows as they come; node values as affine expressions (matrix over columns, constants)."""

    def __init__(self) -> None:
        self.lower: list[np.ndarray] = []
        self.upper: list[np.ndarray] = []
        self.integer: list[np.ndarray] = []
        self.columns = 0
        self.rows: list[tuple[Any, np.ndarray, np.ndarray]] = []
        self.labels = Labels()

    def add_columns(
        self, lower: np.ndarray, upper: np.ndarray, label: str, units: np.ndarray | None = None, integer: bool = False
    ) -> np.ndarray:
        self.labels.columns.append((label, np.arange(len(lower)) if units is None else units))
        self.lower.append(np.asarray(lower, np.float64))
        self.upper.append(np.asarray(upper, np.float64))
        self.integer.append(np.full(len(lower), integer))
        self.columns += len(lower)
        return np.arange(self.columns - len(lower), self.columns)

    def add_rows(
        self,
        entries: list[tuple[np.ndarray, Any]],
        matrix: Any,
        low: np.ndarray,
        high: np.ndarray,
        label: str,
        units: np.ndarray | None = None,
    ) -> None:
        """Rows low <= matrix @ columns + sum of value * column <= high, one `(columns, values)` entry each per row."""
        self.labels.rows.append((label, np.arange(len(low)) if units is None else units))
        count = len(low)
        index = np.arange(count)
        total = self.widen(matrix) if matrix is not None else scipy.sparse.csr_array((count, self.columns))
        for columns, values in entries:
            data = np.broadcast_to(np.asarray(values, np.float64), (count,))
            total = total + scipy.sparse.csr_array((data, (index, columns)), shape=(count, self.columns))
        self.rows.append((total, np.asarray(low, np.float64), np.asarray(high, np.float64)))

    def widen(self, matrix: Any) -> Any:
        """A matrix over the columns so far, as one over all columns there are now."""
        return widened(scipy.sparse.csr_array(matrix), self.columns)

    def milp(self) -> Milp:
        matrix = scipy.sparse.vstack([self.widen(m) for m, _, _ in self.rows], format="csr") if self.rows else None
        if matrix is None:
            matrix = scipy.sparse.csr_array((0, self.columns))
        return Milp(
            np.zeros(self.columns),
            0.0,
            scipy.sparse.csr_array(matrix),
            np.concatenate([low for _, low, _ in self.rows]) if self.rows else np.zeros(0),
            np.concatenate([high for _, _, high in self.rows]) if self.rows else np.zeros(0),
            np.concatenate(self.lower),
            np.concatenate(self.upper),
            np.concatenate(self.integer),
        )


def encode(network: Network, bounds: Bounds, output: int | None = None, stop: Callable[[], bool] = never) -> Encoding:
    """The MILP of `network` over the box of `bounds` (batch 1) [Tjeng et al. 2019, section 4.1].

    Unstable ReLU, l < 0 < u: y >= 0, y >= x, y <= u a, y <= x - l (1 - a), a binary. Active: y = x, one column.
    Inactive: y = 0, no column. output: the node whose values are the outputs; the network's own by default.
    Raises Stopped once `stop` returns true.
    """
    output = network.output if output is None else output
    builder = _Builder()
    expressions: dict[int, tuple[Any, np.ndarray]] = {}
    relus: dict[int, ReluColumns] = {}
    before: dict[int, np.ndarray] = {}  # columns of pre-activations, -1 where there is none
    needed = _cone(network, output)
    read = {node.source for i, node in enumerate(network.nodes) if i in needed and isinstance(node, Relu)}
    # Weights are never multiplied with weights: a product would be rounded, and dense. Such nodes get columns.
    moved = {i for i, node in enumerate(network.nodes) if i in needed and _moves(network, node)}
    materialized = {
        term.source
        for i, node in enumerate(network.nodes)
        if i in needed and isinstance(node, Affine)
        for term in node.terms
        if isinstance(network.nodes[term.source], Affine) and term.source not in moved
    }
    inputs = np.zeros(0, int)
    for index, node in enumerate(network.nodes):
        if index not in needed:
            continue
        if stop():
            raise Stopped
        low, high = (side[index].reshape(-1).astype(np.float64) for side in (bounds.lower, bounds.upper))
        if isinstance(node, Input):
            inputs = builder.add_columns(low, high, "input")
            expressions[index] = scipy.sparse.eye_array(len(low), format="csr"), np.zeros(len(low))
        elif isinstance(node, Relu):
            relus[index], expressions[index] = _relu(builder, index, before[node.source], high, bounds)
        else:
            expressions[index] = _affine(builder, index, node, expressions, bounds.deviation(index))
        if index in read:
            before[index] = _columns_of(builder, index, expressions[index], low, high)
        elif index in materialized:
            expressions[index] = _own_columns(builder, index, expressions[index], low, high)
    matrix, constant = expressions[output]
    plain = (0, *relus, *sorted(moved), *(node for node in materialized if node not in read))
    milp, curved = confined(builder.milp(), inputs, bounds.inputs)
    entries = {node: widened(expressions[node][0], milp.columns) for node in plain if node in expressions}
    return Encoding(milp, inputs, relus, (widened(matrix, milp.columns), constant), entries, builder.labels, curved)


def _moves(network: Network, node: Node) -> bool:
    """Whether a node only moves values of inputs and ReLUs about: there is nothing to be rounded."""
    return (
        isinstance(node, Affine)
        and node.bias is None
        and not node.inexact
        and all(isinstance(term.operator, Index) for term in node.terms)
        and not any(isinstance(network.nodes[source], Affine) for source in sources(node))
    )


def _cone(network: Network, output: int) -> set[int]:
    """The nodes that `output` depends on, the input among them."""
    needed = {output, 0}
    for index in range(output, -1, -1):
        if index in needed:
            needed.update(sources(network.nodes[index]))
    return needed


def _affine(
    builder: _Builder,
    index: int,
    node: Affine,
    expressions: dict[int, tuple[Any, np.ndarray]],
    deviation: np.ndarray | None,
) -> tuple[Any, np.ndarray]:
    size = int(np.prod(node.shape))
    matrix = scipy.sparse.csr_array((size, builder.columns))
    constant = np.zeros(size)
    if node.bias is not None:
        constant = np.broadcast_to(np.asarray(node.bias, np.float64), node.shape).reshape(-1).copy()
    terms = [(term.operator.to_sparse(), *expressions[term.source]) for term in node.terms]
    for operator, inner, shift in terms:
        matrix = matrix + operator @ builder.widen(inner)
        constant = constant + operator @ shift
    off = _rounding(builder, terms, constant)
    if node.error_bound is not None:  # a reduced network: what multiplying out may have lost
        off = off + np.broadcast_to(np.asarray(node.error_bound, np.float64), node.shape).reshape(-1)
    if deviation is not None:
        off = off + deviation.reshape(-1).astype(np.float64)
    if off.any():  # it gets columns of its own
        columns = builder.add_columns(-off, off, f"rounding{index}")
        matrix = builder.widen(matrix) + scipy.sparse.csr_array(
            (np.ones(size), (np.arange(size), columns)), shape=(size, builder.columns)
        )
    return scipy.sparse.csr_array(matrix), constant


def _rounding(builder: _Builder, terms: list[tuple[Any, Any, np.ndarray]], constant: np.ndarray) -> np.ndarray:
    """By how much the sums of a node's terms (operator, matrix over columns, constants) may be off where several
    summands meet in one coefficient: zero for rows whose coefficients are single products with one."""
    if len(terms) == 1 and np.bincount(terms[0][1].indices, minlength=1).max() <= 1:
        return np.zeros(len(constant))  # a column of one entry each: no two summands meet
    size = np.zeros(builder.columns)
    if terms:
        bounds = (np.concatenate(side) for side in (builder.lower, builder.upper))
        size = np.max([np.abs(side) for side in bounds], axis=0)
    summands: Any = 0
    total = np.abs(constant)
    for operator, inner, shift in terms:
        wide = builder.widen(abs(inner))
        summands = summands + (operator != 0).astype(float) @ (wide != 0).astype(float)
        total = total + abs(operator) @ (wide @ size + np.abs(shift))
    if not terms:
        return np.zeros(len(constant))
    most = summands.max(axis=1).toarray().reshape(-1)
    return np.where(most > 1, total * (most + 8) * ROUNDOFF, 0.0)


def _columns_of(
    builder: _Builder, index: int, expression: tuple[Any, np.ndarray], low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Columns for the entries of a pre-activation that are not proven inactive; -1 for the others."""
    wanted = np.flatnonzero(high > 0)
    columns = np.full(len(low), -1)
    matrix, constant = expression
    columns[wanted] = builder.add_columns(low[wanted], high[wanted], f"layer{index}", wanted)
    shift = -constant[wanted]
    builder.add_rows([(columns[wanted], -1.0)], matrix[wanted], shift, shift, f"layer{index}", wanted)
    return columns


def _own_columns(
    builder: _Builder, index: int, expression: tuple[Any, np.ndarray], low: np.ndarray, high: np.ndarray
) -> tuple[Any, np.ndarray]:
    """Columns for every entry of an affine node that another one reads; returns its new expression."""
    matrix, constant = expression
    columns = builder.add_columns(low, high, f"layer{index}")
    builder.add_rows([(columns, -1.0)], matrix, -constant, -constant, f"layer{index}")
    ones = scipy.sparse.csr_array(
        (np.ones(len(low)), (np.arange(len(low)), columns)), shape=(len(low), builder.columns)
    )
    return ones, np.zeros(len(low))


def _relu(
    builder: _Builder, index: int, before: np.ndarray, high: np.ndarray, bounds: Bounds
) -> tuple[ReluColumns, tuple[Any, np.ndarray]]:
    source = bounds.network.relu_source(index)
    l, u = bounds.lower[source].reshape(-1), bounds.upper[source].reshape(-1)  # noqa: E741 - as in the papers
    units = np.flatnonzero((l < 0) & (u > 0))
    x, l, u = before[units], l[units], u[units]  # noqa: E741
    y = builder.add_columns(np.zeros(len(units)), high[units], f"relu{index}", units)
    a = builder.add_columns(np.zeros(len(units)), np.ones(len(units)), f"active{index}", units, integer=True)
    infinite = np.full(len(units), np.inf)
    if len(units):
        builder.add_rows([(y, 1.0), (x, -1.0)], None, np.zeros(len(units)), infinite, f"above{index}", units)
        builder.add_rows([(y, 1.0), (a, -u)], None, -infinite, np.zeros(len(units)), f"off{index}", units)
        builder.add_rows([(y, 1.0), (x, -1.0), (a, -l)], None, -infinite, -l, f"on{index}", units)
    after = np.where(before >= 0, before, -1)  # an active unit is its own pre-activation
    after[units] = y
    kept = np.flatnonzero(after >= 0)
    matrix = scipy.sparse.csr_array((np.ones(len(kept)), (kept, after[kept])), shape=(len(before), builder.columns))
    return ReluColumns(units, x, y, a), (matrix, np.zeros(len(before)))
