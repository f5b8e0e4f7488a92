"""Lossless clean-up of a freshly built network: fewer nodes, the same real-valued function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mipverify.network.arrays import is_torch_array
from mipverify.network.builder import Builder, Tensor
from mipverify.network.graph import Affine, Network, Node, Relu, Term, sources
from mipverify.network.operators import Array, Identity, Index


def finish(
    builder: Builder,
    output: Tensor,
    tensors: Mapping[str, Tensor] | None = None,
    sites: Mapping[int, tuple[str, int]] | None = None,
    **origin: Any,
) -> Network:
    """The simplified network of what `builder` holds, returning `output`; `origin` fills the fields of Network.

    tensors: by the file's name, what its tensors became; those that are still values of nodes become `Network.tensors`.
    sites: of the builder's ReLU nodes; those that are left become `Network.sites`.
    """
    nodes, index, kept, place = simplified(builder.nodes, output.node)
    named = tuple((name, place[x.node]) for name, x in (tensors or {}).items() if x.node in place)
    names = [builder.names[i] for i in kept]
    left = {new: sites[old] for new, old in enumerate(kept) if old in sites} if sites else {}
    node = nodes[index]
    if node.shape != output.shape:
        if isinstance(node, Affine):
            nodes[index] = _viewed(node, output.shape)
        else:
            nodes.append(Affine(output.shape, (Term(index, Identity(output.shape)),)))
            names.append(builder.name)
            index = len(nodes) - 1
    return Network(tuple(nodes), index, tuple(names), tensors=named, sites=left, **origin)


def _viewed(node: Affine, shape: tuple[int, ...]) -> Affine:
    """A node with its value in another shape; the output is one that no ReLU reads."""
    magnitude = None if node.magnitude is None else node.magnitude.reshape(shape)
    bias = None if node.bias is None else node.bias.reshape(shape)
    return replace(node, shape=shape, bias=bias, magnitude=magnitude)


def simplified(nodes: list[Node], output: int) -> tuple[list[Node], int, list[int], dict[int, int]]:
    """Simplified nodes, the new index of `output`, for each new node the index of the one it came from, and back.

    The way back has all old nodes whose value is that of a new one.
    """
    nodes = list(nodes)
    alias = list(range(len(nodes)))
    seen: dict[tuple[Any, ...], int] = {}
    for i, node in enumerate(nodes):
        node = _redirected(node, alias)
        if isinstance(node, Relu) and node.shape != nodes[node.source].shape:
            node = Relu(nodes[node.source].shape, node.source)  # what it reads now is a view of what it read
        if isinstance(node, Affine):
            node = _composed(node, nodes)
            nodes[i] = node
            target = _alias(node)
            if target is not None:
                alias[i] = target
                continue
        elif isinstance(node, Relu):
            nodes[i] = node
            if isinstance(nodes[node.source], Relu):
                alias[i] = node.source  # relu(relu(x)) = relu(x)
                continue
        key = _key(node)
        if key is not None:
            alias[i] = seen.setdefault(key, i)
    output = alias[output]
    _fold(nodes, output)
    renumbered, index, kept = _without_dead(nodes, output)
    number = {old: new for new, old in enumerate(kept)}
    return renumbered, index, kept, {old: number[at] for old, at in enumerate(alias) if at in number}


def _redirected(node: Node, alias: Sequence[int] | Mapping[int, int]) -> Node:
    """The node with other numbers for those it reads; itself where they stay, as most do in a file of 10^5 nodes."""
    if all(alias[i] == i for i in sources(node)):
        return node
    if isinstance(node, Relu):
        return Relu(node.shape, alias[node.source])
    assert isinstance(node, Affine)
    return replace(node, terms=tuple([Term(alias[t.source], t.operator) for t in node.terms]))


def _alias(node: Affine) -> int | None:
    """The node that an affine node merely repeats, or None."""
    if node.bias is None and len(node.terms) == 1 and isinstance(node.terms[0].operator, Identity):
        return node.terms[0].source
    return None


def _key(node: Node) -> tuple[Any, ...] | None:
    """What makes two nodes equal, for the kinds that imports duplicate."""
    if isinstance(node, Relu):
        return ("relu", node.source)
    if isinstance(node, Affine) and node.bias is None and len(node.terms) == 1:
        operator = node.terms[0].operator
        if isinstance(operator, Index):
            return ("index", node.terms[0].source, operator.indices.tobytes())
    return None


def _composed(node: Affine, nodes: list[Node]) -> Affine:
    """Data movements of data movements as one."""
    if not any(isinstance(term.operator, Index) for term in node.terms):
        return node
    terms = []
    for term in node.terms:
        source = nodes[term.source]
        while (
            isinstance(term.operator, Index)
            and isinstance(source, Affine)
            and source.bias is None
            and len(source.terms) == 1
            and isinstance(source.terms[0].operator, Index)
        ):
            inner, outer = source.terms[0].operator, term.operator.indices
            indices = np.where(outer < 0, -1, inner.indices[np.maximum(outer, 0)])
            term = Term(source.terms[0].source, Index(indices, inner.in_shape, term.operator.out_shape))
            source = nodes[term.source]
        if isinstance(term.operator, Index) and _is_identity(term.operator):
            term = Term(term.source, Identity(term.operator.out_shape))
        terms.append(term)
    return replace(node, terms=tuple(terms))


def _is_identity(operator: Index) -> bool:
    return operator.in_size == operator.out_size and np.array_equal(operator.indices, np.arange(operator.in_size))


def _fold(nodes: list[Node], output: int) -> None:
    """Take the terms of an affine node into the only node that reads it, where that one adds it unchanged."""
    alive = _alive(nodes, output)
    uses = [0] * len(nodes)
    for i in alive:
        for read in sources(nodes[i]):
            uses[read] += 1
    uses[output] += 1
    for i in sorted(alive):
        node = nodes[i]
        if not isinstance(node, Affine):
            continue
        terms: list[Term] = []
        bias, magnitude, steps = node.bias, node.magnitude, node.steps
        for term in node.terms:
            source = nodes[term.source]
            if isinstance(term.operator, Identity) and isinstance(source, Affine) and uses[term.source] == 1:
                possible, total = _exact_sum(bias, source.bias, node.shape)
                if possible:
                    terms += source.terms
                    steps += source.steps
                    magnitude = _magnitude(bias, magnitude, source, node.shape)
                    bias = total
                    continue
            terms.append(term)
        if len(terms) != len(node.terms) or any(a is not b for a, b in zip(terms, node.terms, strict=True)):
            nodes[i] = replace(node, terms=tuple(terms), bias=bias, magnitude=magnitude, steps=steps)


def _magnitude(bias: Array | None, magnitude: Array | None, source: Affine, shape: tuple[int, ...]) -> Array | None:
    """`Affine.magnitude` of a bias to which that of `source` is added."""
    if source.bias is None:
        return magnitude
    added = abs(source.bias) if source.magnitude is None else source.magnitude
    if bias is None:
        return None if source.magnitude is None else added.reshape(shape)
    return (abs(bias) if magnitude is None else magnitude) + added.reshape(shape)


def _exact_sum(a: Array | None, b: Array | None, shape: tuple[int, ...]) -> tuple[bool, Array | None]:
    """(True, a + b) if no entry of the sum is rounded in float64, else (False, None)."""
    if a is None or b is None:
        only = b if a is None else a
        return True, None if only is None else only.reshape(shape)
    if is_torch_array(a) or is_torch_array(b):
        return False, None  # parameters stay the module's own
    x, y = a.reshape(shape).astype(np.float64), b.reshape(shape).astype(np.float64)
    total = x + y
    part = total - x  # the error of a sum, exactly [Knuth, TAOCP 2, 4.2.2]
    error = (x - (total - part)) + (y - part)
    if error.any() or not np.isfinite(total).all():
        return False, None
    return True, total


def _alive(nodes: list[Node], output: int) -> set[int]:
    alive, pending = {0}, [output]
    while pending:
        i = pending.pop()
        if i not in alive:
            alive.add(i)
            pending += sources(nodes[i])
    return alive


def _without_dead(nodes: list[Node], output: int) -> tuple[list[Node], int, list[int]]:
    """The nodes that `output` depends on, renumbered."""
    kept = sorted(_alive(nodes, output))
    number = {old: new for new, old in enumerate(kept)}
    return [_redirected(nodes[old], number) for old in kept], number[output], kept
