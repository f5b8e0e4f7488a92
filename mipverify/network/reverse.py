"""The reverse traversal of a network, shared by bounds, gradients and activation regions.

Whatever is passed from the output side to the input (rows of coefficients, windows of them, gradients) meets each node
once, after everyone who reads that node; what several readers leave for a node is added up. What happens at a node is
the caller's: a handler for each kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

from mipverify.network.graph import Affine, Input, Network, Relu
from mipverify.network.operators import Array

T = TypeVar("T")

AffineHandler: TypeAlias = Callable[[int, Affine, T], Iterable[tuple[int, T]]]
ReluHandler: TypeAlias = Callable[[int, Relu, T], Iterable[tuple[int, T]]]


def _sum(one: Any, other: Any, _: int) -> Any:
    return one + other


def walk_back(
    network: Network,
    start: Mapping[int, T],
    relu: ReluHandler[T],
    affine: AffineHandler[T],
    add: Callable[[T, T, int], T] = _sum,
) -> T | None:
    """What reaches the input of what starts at some nodes; None where nothing does.

    relu, affine: given the index of a node, the node and what its readers left for it, the pairs of an earlier node and
    what is left for that. add: the sum of two things left for a node, given its index.
    """
    pending = dict(start)
    for index in range(max(pending, default=0), 0, -1):
        if index not in pending:
            continue
        rows, node = pending.pop(index), network.nodes[index]
        assert not isinstance(node, Input)
        left = relu(index, node, rows) if isinstance(node, Relu) else affine(index, node, rows)
        for source, back in left:
            pending[source] = add(pending[source], back, source) if source in pending else back
    return pending.get(0)


def through_terms(network: Network, node: Affine, rows: Array) -> Iterator[tuple[int, Array]]:
    """Rows (R, *shape) of an affine node through each of its terms: pairs of its source and rows (R, *source shape)."""
    for term in node.terms:
        back: Any = term.operator.adjoint(rows.reshape(rows.shape[0], *term.operator.out_shape))
        yield term.source, back.reshape(back.shape[0], *network.nodes[term.source].shape)
