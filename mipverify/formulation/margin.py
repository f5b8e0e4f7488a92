"""Output conditions as part of the network: one output for each condition, not positive exactly where it is met.

A condition is a conjunction of rows c . y + d . x <= b; it is met where the largest of c . y + d . x - b is <= 0. That
maximum is made of ReLUs like any other, so bounds, branching and MILP treat conjunctions without knowing of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import scipy

from mipverify.network import Affine, Network, Relu, Term
from mipverify.network.graph import Node
from mipverify.network.operators import Dense, Operator, Sparse
from mipverify.specification import Condition

Rows: TypeAlias = Any  # a dense or a sparse matrix

DENSE_ENTRIES = 2**16  # rows of conditions are one dense product up to this size


def margin_network(network: Network, conditions: Sequence[Condition]) -> Network:
    """The network with the margins (number of conditions,) as its output; the property holds where all are positive.

    Memory is linear in the size of the conditions: there may be 10^5 of them.
    """
    offset = np.concatenate([c.offset for c in conditions]).astype(np.float64)
    terms = [Term(network.output, _rows_operator(_output_rows(conditions)))]
    if any(c.input_rows is not None for c in conditions):
        terms.append(Term(0, _rows_operator(_input_rows(conditions, network.input_size))))
    nodes: list[Node] = [*network.nodes, Affine((len(offset),), tuple(terms), -offset)]
    sizes = np.array([len(c.offset) for c in conditions])
    while sizes.max() > 1:
        sizes = _halve(nodes, sizes)
    return Network(
        tuple(nodes),
        len(nodes) - 1,
        path=network.path,
        sha256=network.sha256,
        input_name=network.input_name,
        notes=network.notes,
        inequalities=network.inequalities,
    )


def condition_parts(network: Network, conditions: Sequence[Condition]) -> list[tuple[int, list[int]]]:
    """For each condition the node of its margin network, and the units there, whose maximum it is."""
    found, start = [], 0
    for condition in conditions:
        size = len(condition.offset)
        found.append((len(network.nodes), list(range(start, start + size))))
        start += size
    return found


def _output_rows(conditions: Sequence[Condition]) -> Rows:
    """The rows on outputs of all conditions (m, k): dense while they are few."""
    count = sum(len(c.offset) for c in conditions)
    if count * conditions[0].output_rows.shape[1] <= DENSE_ENTRIES:
        return np.concatenate([c.output_rows for c in conditions]).astype(np.float64)
    some = [conditions[begin : begin + 1024] for begin in range(0, len(conditions), 1024)]
    blocks = [scipy.sparse.csr_array(np.concatenate([c.output_rows for c in part])) for part in some]
    return scipy.sparse.csr_array(scipy.sparse.vstack(blocks, format="csr"))


def _input_rows(conditions: Sequence[Condition], size: int) -> Rows:
    """The rows on inputs of all conditions (m, size), zero where a condition has none."""
    given = [c.input_rows for c in conditions if c.input_rows is not None]
    per_row = [
        np.zeros(len(c.offset), int) if c.input_rows is None else np.diff(c.input_rows.indptr) for c in conditions
    ]
    starts = np.concatenate([[0], np.cumsum(np.concatenate(per_row))])
    entries = np.concatenate([rows.data for rows in given]), np.concatenate([rows.indices for rows in given])
    rows = scipy.sparse.csr_array((*entries, starts), shape=(len(starts) - 1, size))
    return rows.toarray() if rows.shape[0] * size <= DENSE_ENTRIES else rows


def _rows_operator(rows: Rows) -> Operator:
    operator = Dense(rows) if isinstance(rows, np.ndarray) else Sparse(rows, rows.shape[1:], rows.shape[:1])
    operator.terms += 2  # a decimal coefficient may itself be rounded once
    return operator


def _halve(nodes: list[Node], sizes: np.ndarray) -> np.ndarray:
    """Append nodes that take the maximum of pairs within each group of the last node; returns the new group sizes."""
    pairs, new_sizes = sizes // 2, (sizes + 1) // 2
    starts, new_starts = (np.cumsum(s) - s for s in (sizes, new_sizes))
    group = np.repeat(np.arange(len(sizes)), pairs)
    place = np.arange(len(group)) - np.repeat(np.cumsum(pairs) - pairs, pairs)  # of a pair in its group
    left, first = starts[group] + 2 * place, new_starts[group] + place
    odd = np.flatnonzero(sizes % 2)
    kept = np.empty(new_sizes.sum(), int)
    kept[first] = left + 1
    kept[new_starts[odd] + pairs[odd]] = starts[odd] + sizes[odd] - 1
    # max(a, b) = b + relu(a - b)
    last, total, count = len(nodes) - 1, int(sizes.sum()), len(left)
    difference = _entries([(1.0, np.arange(count), left), (-1.0, np.arange(count), left + 1)], (count, total))
    select = _entries([(1.0, np.arange(len(kept)), kept)], (len(kept), total))
    add = _entries([(1.0, first, np.arange(count))], (len(kept), count))
    nodes.append(Affine((count,), (Term(last, difference),)))
    nodes.append(Relu((count,), last + 1))
    nodes.append(Affine((len(kept),), (Term(last, select), Term(last + 2, add))))
    return np.asarray(new_sizes)


def _entries(parts: Sequence[tuple[float, np.ndarray, np.ndarray]], shape: tuple[int, int]) -> Operator:
    """The matrix with these values at (rows, columns)."""
    values = np.concatenate([np.full(len(rows), value) for value, rows, _ in parts])
    places = tuple(np.concatenate([part[k] for part in parts]) for k in (1, 2))
    return Sparse(scipy.sparse.csr_array((values, places), shape=shape), shape[1:], shape[:1])
