"""Signs that hold whatever the bounds are: the ReLU of a sum is at most the sum of the ReLUs.

Of two networks that are compared, the relaxations of relu(v), relu(w) and relu(v + w) do not know that. Nothing is
computed here: sums of entries with coefficients 1 and -1 are compared, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from mipverify.network import Affine, Network, Relu
from mipverify.network.operators import Identity, Index, Operator, Scale, Sparse
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import SEAL, UnitBounds

_Entry: TypeAlias = tuple[int, int]  # a node and a flat entry of it
_Sum: TypeAlias = Mapping[_Entry, float]


def subadditive(bounds: Bounds, node: int) -> UnitBounds:
    """Zero as the lower bound of those entries of a node that are relu(v) + relu(w) - relu(v + w); nothing of others.

    relu(v) - v counts as relu(-v), and so does relu(w) - w. v, w and their sum are any entries of nodes.
    """
    sums = _Sums(bounds.network)
    size = int(np.prod(bounds.network.nodes[node].shape))
    shown = np.array([_shown(sums, node, entry) for entry in range(size)], bool)
    lower, upper = np.where(shown, 0.0, -np.inf), np.full(size, np.inf)
    return UnitBounds(bounds.scope, node, None, np.arange(size), lower, upper, seal=SEAL)


def _shown(sums: _Sums, node: int, entry: int) -> bool:
    """Whether an entry is such a sum."""
    nodes = sums.network.nodes
    linear: dict[_Entry, float] = {}
    relus: dict[float, list[_Sum]] = {1.0: [], -1.0: []}
    for (source, place), factor in sums.step(node, entry).items():
        what = nodes[source]
        if not isinstance(what, Relu):
            _add(linear, sums.whole(source, place), factor)
        elif factor in relus:
            relus[factor].append(sums.whole(what.source, place))
        else:
            return False
    if len(relus[1.0]) != 2 or len(relus[-1.0]) != 1:
        return False
    (v, w), (whole,) = relus[1.0], relus[-1.0]
    if not linear:
        return _total(v, w) == whole
    minus_v, minus_w = _negative(v), _negative(w)
    return (linear == minus_v and _total(minus_v, w) == whole) or (linear == minus_w and _total(v, minus_w) == whole)


class _Sums:
    """Entries of a network as sums of entries before them."""

    def __init__(self, network: Network):
        self.network = network
        self._rows: dict[int, list[tuple[int, Any]] | None] = {}

    def step(self, node: int, entry: int) -> _Sum:
        """An entry as the sum that its node makes of others; itself where that is no sum with coefficients 1 and -1."""
        if node not in self._rows:
            self._rows[node] = self._matrices(node)
        matrices = self._rows[node]
        if matrices is None:
            return {(node, entry): 1.0}
        found: dict[_Entry, float] = {}
        for source, matrix in matrices:
            row = slice(matrix.indptr[entry], matrix.indptr[entry + 1])
            for place, factor in zip(matrix.indices[row].tolist(), matrix.data[row].tolist(), strict=True):
                _add(found, {(source, place): 1.0}, factor)
        return found

    def whole(self, node: int, entry: int) -> _Sum:
        """An entry as a sum of entries that are no such sums themselves."""
        found: dict[_Entry, float] = {}
        for (source, place), factor in self.step(node, entry).items():
            known = {(node, entry): 1.0} if (source, place) == (node, entry) else self.whole(source, place)
            _add(found, known, factor)
        return found

    def _matrices(self, node: int) -> list[tuple[int, Any]] | None:
        """The matrices of an affine node that adds and subtracts entries, exactly; None for any other."""
        what = self.network.nodes[node]
        if not isinstance(what, Affine) or what.bias is not None or what.inexact:
            return None
        if not all(isinstance(term.operator, (Identity, Index, Scale, Sparse)) for term in what.terms):
            return None
        matrices = [(term.source, _matrix(term.operator)) for term in what.terms]
        return matrices if all(bool(np.isin(matrix.data, (1.0, -1.0)).all()) for _, matrix in matrices) else None


def _matrix(operator: Operator) -> Any:
    """The matrix of an operator without the zeros that it stores."""
    matrix = operator.to_sparse().copy()
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _add(total: dict[_Entry, float], summands: _Sum, factor: float) -> None:
    """Add a multiple to a sum, in place; entries that vanish are left out. All are whole numbers, and exact."""
    for entry, own in summands.items():
        total[entry] = total.get(entry, 0.0) + factor * own
        if not total[entry]:
            del total[entry]


def _total(one: _Sum, other: _Sum) -> _Sum:
    found = dict(one)
    _add(found, other, 1.0)
    return found


def _negative(one: _Sum) -> _Sum:
    return {entry: -factor for entry, factor in one.items()}
