"""Two networks of one input as one network, in which the values of the first are those of the second plus a difference.

The difference of two scores, each in its interval, is as wide as both together. Here, wherever both networks have the
same form, a difference d = x_A - x_B is a node of its own, with W_A x_A - W_B x_B = W_A d + (W_A - W_B) x_B [Paulsen et
al. 2020, ReluDiff; Teuber et al. 2024, VeryDiff]: where weights agree and units are stable, nothing but d is passed on.
Networks of different forms stand side by side and share their input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mipverify.errors import InputError
from mipverify.network.graph import Affine, Input, Network, Node, Relu, Term
from mipverify.network.operator_difference import NotAlikeError, difference
from mipverify.network.operators import Array, Identity, Index, Operator, Scale, Sparse


@dataclass(frozen=True)
class Units:
    """The ReLU units at the same place of both networks: the nodes of their pre-activations' difference, of the
    pre-activations (of the first, the second) and of what becomes of these. All have the same shape."""

    difference: int
    before: tuple[int, int]
    after: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two networks with the same input in one. network: gives the outputs of the first and those of the second behind
    them, (2 k,). layers: their ReLU layers that differ, where both have the same form. alike: whether they do.
    """

    network: Network
    layers: tuple[Units, ...]
    alike: bool


def pair(first: Network, second: Network) -> Pair:
    """Two networks as one, whose original is both of them.

    Raises InputError where they do not take the same inputs, or do not give as many outputs.
    """
    _check(first, second)
    alike, layers = True, list[Units]()
    try:
        together = _Together(first, second)
        nodes, layers = together.nodes(), together.layers
    except NotAlikeError:
        nodes, alike = _side_by_side(first, second), False
    network = Network(
        tuple(nodes),
        len(nodes) - 1,
        path=f"{_name(first)}, {_name(second)}",
        input_name=first.input_name,
        notes=tuple(dict.fromkeys(first.notes + second.notes)),
        pair=(first, second),
    )
    return Pair(network, tuple(layers), alike)


def with_inequalities(found: Pair, units: Sequence[np.ndarray]) -> Network:
    """The network of a pair, with nodes that say how little a ReLU makes of a difference, for some units of each layer.

    For d = a - b both of relu(d) - relu(a) + relu(b) and relu(d) - d + relu(a) - relu(b) are never negative
    (`mipverify.proof.subadditive`), of which the relaxations of the three ReLUs know nothing. Each of them becomes the
    pre-activation of a ReLU that its readers multiply by zero: no value depends on them, and bounds may make use of
    their signs. units: flat, by layer of `found.layers`; a choice of who searches.
    """
    old = found.network
    nodes: list[Node] = list(old.nodes[: old.output])
    held: list[int] = []
    for layer, chosen in zip(found.layers, units, strict=True):
        if not len(chosen):
            continue
        count, shape = (len(chosen),), nodes[layer.difference].shape
        terms = [Term(layer.difference, Index(chosen, shape, count)), *_zeros(nodes, held, count)]
        d = _append(nodes, Affine(count, tuple(terms)))
        positive = _append(nodes, Relu(count, d))
        for sign in (1, -1):
            parts = [(positive, 1.0, None), (layer.after[0], -sign, chosen), (layer.after[1], sign, chosen)]
            parts += [(d, -1.0, None)] if sign < 0 else []
            sums = _append(nodes, Affine(count, tuple(_some(nodes, *part) for part in parts)))
            held.append(_append(nodes, Relu(count, sums)))
    output = old.nodes[old.output]
    assert isinstance(output, Affine)
    nodes.append(replace(output, terms=(*output.terms, *_zeros(nodes, held, output.shape))))
    return replace(old, nodes=tuple(nodes), output=len(nodes) - 1, inequalities=tuple(held))


def _append(nodes: list[Node], node: Node) -> int:
    nodes.append(node)
    return len(nodes) - 1


def _some(nodes: Sequence[Node], source: int, factor: float, units: np.ndarray | None) -> Term:
    """`factor` times some flat entries of a node, or all of them."""
    shape = nodes[source].shape
    if units is None:
        return Term(source, Identity(shape) if factor == 1 else Scale(np.float64(factor), shape))
    return Term(source, _entries(units, factor, shape))


def _entries(units: np.ndarray, factor: float, shape: tuple[int, ...]) -> Operator:
    import scipy.sparse

    if factor == 1:
        return Index(units, shape, (len(units),))
    places = np.arange(len(units)), units
    matrix = scipy.sparse.csr_array((np.full(len(units), factor), places), shape=(len(units), math.prod(shape)))
    return Sparse(matrix, shape, (len(units),))


def _zeros(nodes: Sequence[Node], sources: Sequence[int], shape: tuple[int, ...]) -> list[Term]:
    """Terms that read nodes and make nothing of them."""
    import scipy.sparse

    empty = [scipy.sparse.csr_array((math.prod(shape), math.prod(nodes[source].shape))) for source in sources]
    return [
        Term(source, Sparse(matrix, nodes[source].shape, shape)) for source, matrix in zip(sources, empty, strict=True)
    ]


@dataclass(frozen=True)
class _Value:
    """What stands for a node of both networks: its value in the second, in the first, and their difference.

    difference: None where both are the same node.
    """

    second: int
    first: int
    difference: int | None = None


class _Together:
    """The nodes of two networks of the same form, one layer after the other. Raises NotAlikeError for others."""

    def __init__(self, first: Network, second: Network):
        if len(first.nodes) != len(second.nodes) or first.output != second.output:
            raise NotAlikeError
        self._first, self._second = first, second
        self._nodes: list[Node] = [Input(first.input_shape)]
        self._values = [_Value(0, 0)]
        self.layers: list[Units] = []  # that differ

    def nodes(self) -> list[Node]:
        """All nodes, with both outputs as the last one."""
        for one, two in zip(self._first.nodes[1:], self._second.nodes[1:], strict=True):
            if isinstance(one, Relu) and isinstance(two, Relu) and one.source == two.source:
                self._values.append(self._relu(one, two))
            elif isinstance(one, Affine) and isinstance(two, Affine):
                self._values.append(self._affine(one, two))
            else:
                raise NotAlikeError
        value = self._values[self._first.output]
        self._nodes.append(_outputs(self._nodes, value.first, value.second))
        return self._nodes

    def _relu(self, one: Relu, two: Relu) -> _Value:
        _same(math.prod(one.shape), math.prod(two.shape))
        before = self._values[one.source]
        second = _append(self._nodes, Relu(self._nodes[before.second].shape, before.second))
        if before.difference is None:
            return _Value(second, second)
        first = _append(self._nodes, Relu(self._nodes[before.first].shape, before.first))
        terms = Term(first, Identity(one.shape)), Term(second, Scale(np.float64(-1.0), one.shape))
        difference = _append(self._nodes, Affine(one.shape, terms))
        self.layers.append(Units(before.difference, (before.first, before.second), (first, second)))
        return _Value(second, first, difference)

    def _affine(self, one: Affine, two: Affine) -> _Value:
        _same(math.prod(one.shape), math.prod(two.shape))
        _same(tuple(term.source for term in one.terms), tuple(term.source for term in two.terms))
        own = tuple(Term(self._values[term.source].second, term.operator) for term in two.terms)
        second = _append(self._nodes, replace(two, terms=own))
        terms: list[Term] = []
        for mine, other in zip(one.terms, two.terms, strict=True):
            source = self._values[mine.source]
            if source.difference is not None:
                terms.append(Term(source.difference, mine.operator))
            terms += [Term(source.second, operator) for operator in difference(mine.operator, other.operator)]
        bias, error = _bias(one, two)
        error_bound = _error_bound(one, two, error)
        if not terms and bias is None and error_bound is None:
            return _Value(second, second)
        apart = _append(self._nodes, Affine(one.shape, tuple(terms), bias, error_bound))
        both = Term(second, Identity(one.shape)), Term(apart, Identity(one.shape))
        return _Value(second, _append(self._nodes, Affine(one.shape, both)), apart)


def _same(one: object, two: object) -> None:
    if one != two:
        raise NotAlikeError


def _bias(one: Affine, two: Affine) -> tuple[Array | None, Array | None]:
    """The difference of two biases in float64, and the rounding error of that; None for zero.

    The error is exact [Knuth, TAOCP 2, 4.2.2].
    """
    if one.bias is None and two.bias is None:
        return None, None
    a, b = (_shaped(bias, one.shape) for bias in (one.bias, two.bias))
    total = a - b
    part = total - a
    error = (a - (total - part)) - (b + part)
    return (total if total.any() else None), (np.abs(error) if error.any() else None)


def _error_bound(one: Affine, two: Affine, error: Array | None) -> Array | None:
    """What the difference may be off by: as much as both nodes together, and what was rounded of their biases."""
    parts = [_shaped(part, one.shape) for part in (one.error_bound, two.error_bound, error) if part is not None]
    return np.sum(parts, axis=0) * (1 + 2**-50) if parts else None


def _shaped(array: Array | None, shape: tuple[int, ...]) -> np.ndarray:
    """An array in float64 and this shape; zeros for None."""
    return np.zeros(shape) if array is None else np.asarray(array, np.float64).reshape(shape)


def _side_by_side(first: Network, second: Network) -> list[Node]:
    """The nodes of one network behind those of the other, with both outputs as the last one."""
    nodes: list[Node] = list(first.nodes)
    shift = len(nodes) - 1

    def moved(source: int) -> int:
        return source + shift if source else 0

    for node in second.nodes[1:]:
        if isinstance(node, Relu):
            nodes.append(Relu(nodes[moved(node.source)].shape, moved(node.source)))
        else:
            assert isinstance(node, Affine)
            nodes.append(replace(node, terms=tuple(Term(moved(t.source), t.operator) for t in node.terms)))
    nodes.append(_outputs(nodes, first.output, moved(second.output)))
    return nodes


def _outputs(nodes: Sequence[Node], first: int, second: int) -> Affine:
    """The outputs of the first network, and behind them those of the second."""
    count = math.prod(nodes[first].shape)
    places = np.arange(2 * count)
    terms = (
        Term(first, Index(np.where(places < count, places, -1), nodes[first].shape, (2 * count,))),
        Term(second, Index(np.where(places < count, -1, places - count), nodes[second].shape, (2 * count,))),
    )
    return Affine((2 * count,), terms)


def _check(first: Network, second: Network) -> None:
    if any(part.arithmetic != "real" for part in (first, second)):
        raise InputError("networks are compared as real-valued functions")
    shapes = [tuple(size for size in part.input_shape if size != 1) for part in (first, second)]
    flat = min(len(shape) for shape in shapes) <= 1
    if first.input_size != second.input_size or not (flat or shapes[0] == shapes[1]):
        raise InputError(
            f"{_name(second)}: takes inputs of shape {list(second.input_shape)}, {_name(first)} of "
            f"{list(first.input_shape)}: networks of the same input can be compared"
        )
    if first.output_size != second.output_size:
        raise InputError(
            f"{_name(second)}: gives {second.output_size} outputs, {_name(first)} {first.output_size}: networks of the "
            "same outputs can be compared"
        )


def _name(network: Network) -> str:
    return network.path or "the network"
