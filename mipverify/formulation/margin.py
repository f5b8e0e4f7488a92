"""Output conditions as part of the network: one output for each condition, not positive exactly where it is met.

A condition is a conjunction of rows c . y + d . x <= b; it is met where the largest of c . y + d . x - b is <= 0. That
maximum is made of ReLUs like any other, so bounds, branching and MILP treat conjunctions without knowing of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mipverify.network import Affine, Network, Relu, Term
from mipverify.network.graph import Node
from mipverify.network.operators import Dense, Operator, Sparse
from mipverify.specification import Condition


def margin_network(network: Network, conditions: Sequence[Condition]) -> Network:
    """The network with the margins (number of conditions,) as its output; the property holds where all are positive."""
    output_rows = np.concatenate([c.output_rows for c in conditions]).astype(np.float64)
    offset = np.concatenate([c.offset for c in conditions]).astype(np.float64)
    terms = [Term(network.output, _rows_operator(output_rows))]
    if any(c.input_rows is not None for c in conditions):
        blocks = [
            np.zeros((len(c.offset), network.input_size)) if c.input_rows is None else _dense(c.input_rows)
            for c in conditions
        ]
        terms.append(Term(0, _rows_operator(np.concatenate(blocks))))
    nodes: list[Node] = [*network.nodes, Affine((len(offset),), tuple(terms), -offset)]
    sizes = [len(c.offset) for c in conditions]
    while max(sizes) > 1:
        sizes = _halve(nodes, sizes)
    return Network(
        tuple(nodes),
        len(nodes) - 1,
        path=network.path,
        sha256=network.sha256,
        input_name=network.input_name,
        notes=network.notes,
    )


def condition_parts(network: Network, conditions: Sequence[Condition]) -> list[tuple[int, list[int]]]:
    """For each condition the node of its margin network, and the units there, whose maximum it is."""
    found, start = [], 0
    for condition in conditions:
        size = len(condition.offset)
        found.append((len(network.nodes), list(range(start, start + size))))
        start += size
    return found


def _dense(rows: object) -> np.ndarray:
    return rows.toarray() if hasattr(rows, "toarray") else np.asarray(rows)


def _rows_operator(rows: np.ndarray) -> Operator:
    operator = Dense(rows)
    operator.terms += 2  # a decimal coefficient may itself be rounded once
    return operator


def _halve(nodes: list[Node], sizes: list[int]) -> list[int]:
    """Append nodes that take the maximum of pairs within each group of the last node; returns the new group sizes."""
    total = sum(sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    left: list[int] = []
    right: list[int] = []
    kept: list[int] = []
    first: list[int] = []
    new_sizes: list[int] = []
    for start, size in zip(starts, sizes, strict=True):
        pairs = size // 2
        for k in range(pairs):
            first.append(len(kept))
            left.append(start + 2 * k)
            right.append(start + 2 * k + 1)
            kept.append(start + 2 * k + 1)
        if size % 2:
            kept.append(start + size - 1)
        new_sizes.append(pairs + size % 2)
    last, pairs = len(nodes) - 1, len(left)
    difference, select, add = np.zeros((pairs, total)), np.zeros((len(kept), total)), np.zeros((len(kept), pairs))
    difference[np.arange(pairs), left], difference[np.arange(pairs), right] = 1.0, -1.0
    select[np.arange(len(kept)), kept] = 1.0
    add[first, np.arange(pairs)] = 1.0
    nodes.append(Affine((pairs,), (Term(last, Sparse(difference, (total,), (pairs,))),)))
    nodes.append(Relu((pairs,), last + 1))
    rest = (Term(last, Sparse(select, (total,), (len(kept),))), Term(last + 2, Sparse(add, (pairs,), (len(kept),))))
    nodes.append(Affine((len(kept),), rest))
    return new_sizes
