"""The program of a network over an input set, with tight proven bounds and names: what leaves the house."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy

from mipverify.errors import InputError
from mipverify.formulation.encode import encode
from mipverify.formulation.labels import names
from mipverify.formulation.margin import margin_network
from mipverify.formulation.milp import Milp
from mipverify.network import Affine, Network
from mipverify.proof.backward import unit_minimum
from mipverify.proof.bounds import Bounds
from mipverify.proof.interval import interval_over, tighten
from mipverify.proof.parts import row_chunks
from mipverify.specification import Case
from mipverify.specification.linear_system import widened
from mipverify.specification.sets import InputSet

MOST_COEFFICIENTS = 2**25  # of a program of the whole network, of which solvers keep several copies


class Row(NamedTuple):
    """`values` (e,) times the `columns` (e,) are equal to, at least or at most `limit`. sense: =, >= or <=."""

    name: str
    columns: np.ndarray
    values: np.ndarray
    sense: str
    limit: float


@dataclass(frozen=True, eq=False)
class Program:
    """A MILP whose columns and rows have names. inputs (n,), outputs (k,): columns of the network's."""

    milp: Milp
    columns: list[str]
    rows: list[str]
    inputs: np.ndarray
    outputs: np.ndarray


def one_sided(milp: Milp, names: list[str]) -> Iterator[Row]:
    """The rows of a program by their names (m,), those with two different sides as two of them."""
    matrix = milp.matrix
    for i, name in enumerate(names):
        span = slice(matrix.indptr[i], matrix.indptr[i + 1])
        entries, low, high = (matrix.indices[span], matrix.data[span]), milp.row_lower[i], milp.row_upper[i]
        if low == high:
            yield Row(name, *entries, "=", float(low))
            continue
        sides = [(sense, float(side)) for sense, side in ((">=", low), ("<=", high)) if np.isfinite(side)]
        for sense, side in sides:
            own = name if len(sides) == 1 else f"{name}_{'low' if sense == '>=' else 'high'}"
            yield Row(own, *entries, sense, side)


def fits(network: Network) -> bool:
    """Whether a program of the whole network fits into memory."""
    nodes = (node for node in network.nodes if isinstance(node, Affine))
    return sum(term.operator.work for node in nodes for term in node.terms) <= MOST_COEFFICIENTS


def tight_bounds(network: Network, inputs: InputSet) -> Bounds:
    """Interval bounds, and CROWN for units that these leave unstable, and for all outputs."""
    bounds = interval_over(network, inputs)
    for node in sorted({*network.preactivations, network.output}):
        mask = np.asarray(bounds.unstable(node)).reshape(-1) | (node == network.output)
        units = np.flatnonzero(mask)
        parts = row_chunks(network, node, len(units)) if len(units) else ()
        bounds = tighten(bounds, [unit_minimum(bounds, node, None, units[part]) for part in parts])
    return bounds


def network_program(network: Network, inputs: InputSet) -> Program:
    """The program of a network over an input set, whose columns end with its outputs; its objective is zero.

    Raises InputError where it would be no exact program, too large, or without finite bounds.
    """
    return _program(network, inputs, "output", {})


def case_program(network: Network, case: Case) -> Program:
    """The program whose minimum is the least margin of a case: no input violates exactly where it is positive.

    The conditions are about the network's own output. A margin that is proven to be above another one is never the
    least; of the others, binaries choose one: least >= margin - M (1 - chosen), M from their bounds.
    """
    margins = margin_network(network, case.conditions)
    program = _program(margins, case.inputs, "margin", {f"layer{network.output}": "output"})
    milp, low = program.milp, program.milp.lower[program.outputs]
    high = milp.upper[program.outputs]
    least = np.flatnonzero(low <= high.min())  # the others are above the one with this upper bound
    cost = np.zeros(milp.columns)
    if len(least) == 1:
        cost[program.outputs[least]] = 1.0
        return replace(program, milp=milp.with_objective(cost))
    count = len(least)
    milp = milp.with_columns(np.append(low.min(), np.zeros(count)), np.append(high.min(), np.ones(count)))
    minimum, chosen = milp.columns - count - 1, milp.columns - count + np.arange(count)
    milp = replace(milp, integer=milp.integer | (np.arange(milp.columns) >= chosen[0]))
    big = np.nextafter(high[least] - low.min(), np.inf)
    index, ones = np.arange(count), np.ones(count)
    entries = [(program.outputs[least], ones), (np.full(count, minimum), -ones), (chosen, big)]
    rows = sum(scipy.sparse.csr_array((data, (index, at)), shape=(count, milp.columns)) for at, data in entries)
    one = scipy.sparse.csr_array((ones, (np.zeros(count, int), chosen)), shape=(1, milp.columns))
    milp = milp.with_rows(rows, np.full(count, -np.inf), big).with_rows(one, np.ones(1), np.ones(1))
    return replace(
        program,
        milp=milp.with_objective(np.append(cost, np.zeros(count + 1)) + (np.arange(milp.columns) == minimum)),
        columns=[*program.columns, "least", *(f"chosen_{c}" for c in least)],
        rows=[*program.rows, *(f"least_{c}" for c in least), "chosen"],
    )


def _program(network: Network, inputs: InputSet, output: str, renamed: dict[str, str]) -> Program:
    """With outputs in columns of that name."""
    where = network.path or "the network"
    if not fits(network):
        raise InputError(f"{where}: is too large for a solver's program")
    with np.errstate(over="ignore", invalid="ignore"):  # looked for behind it
        bounds = tight_bounds(network, inputs)
    if not bounds.finite()[0]:
        raise InputError(f"{where}: its values overflow over the input set")
    encoding = encode(network, bounds)
    if encoding.curved is not None:
        raise InputError(f"{where}: the input set is curved, which no linear program says exactly: use linf or l1")
    count = network.output_size
    low, high = (side[network.output].reshape(-1) for side in (bounds.lower, bounds.upper))
    milp = encoding.milp.with_columns(low, high)
    outputs = encoding.milp.columns + np.arange(count)
    matrix, constant = encoding.outputs
    own = scipy.sparse.csr_array((np.ones(count), (np.arange(count), outputs)), shape=(count, milp.columns))
    milp = milp.with_rows(widened(matrix, milp.columns) - own, -constant, -constant)
    made = [f"{output}_{k}" for k in range(count)]
    columns = names(encoding.labels.columns, encoding.milp.columns, "set", renamed)
    rows = names(encoding.labels.rows, encoding.milp.rows, "set", renamed)
    return Program(milp, [*columns, *made], [*rows, *made], encoding.inputs, outputs)
