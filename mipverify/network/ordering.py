"""The nodes that an output depends on, in an order in which they can be computed."""

from __future__ import annotations

import heapq
from typing import Any

from mipverify.errors import InputError


def reads(node: Any) -> list[str]:
    """Names of the tensors that a node reads, those included that its branches take from outside."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        if attribute.type in (attribute.GRAPH, attribute.GRAPHS):
            for graph in (attribute.g, *attribute.graphs):
                names += _from_outside(graph)
    return names


def _from_outside(graph: Any) -> list[str]:
    """What a branch or a loop's body reads and does not produce."""
    own = {value.name for value in (*graph.input, *graph.initializer)}
    own.update(tensor.values.name for tensor in graph.sparse_initializer)
    own.update(name for node in graph.node for name in node.output)
    needed = [name for node in graph.node for name in reads(node)] + [value.name for value in graph.output]
    return [name for name in needed if name and name not in own]


def ordered(graph: Any, path: str) -> tuple[Any, ...]:
    """The nodes of an `onnx.GraphProto` that its outputs depend on, each after those it reads.

    Files need not be sorted, and ONNX Runtime sorts them, too; where the file's order serves, it is kept.
    Raises InputError at a cycle, or where two nodes produce the same tensor.
    """
    producer: dict[str, int] = {}
    for i, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in producer:
                raise InputError(f"{path}: two nodes produce {name!r}")
            producer[name] = i
    needs: dict[int, set[int]] = {}
    pending = [producer[value.name] for value in graph.output if value.name in producer]
    while pending:
        i = pending.pop()
        if i not in needs:
            needs[i] = {producer[name] for name in reads(graph.node[i]) if name in producer}
            pending += needs[i]
    readers: dict[int, list[int]] = {i: [] for i in needs}
    for i, sources in needs.items():
        for source in sources:
            readers[source].append(i)
    waits = {i: len(sources) for i, sources in needs.items()}
    ready = [i for i, count in waits.items() if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for reader in readers[i]:
            waits[reader] -= 1
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(needs):
        node = graph.node[min(set(needs) - set(order))]
        raise InputError(f"{path}: node {node.name or node.output[0]!r} depends on its own output: a cycle")
    return tuple(graph.node[i] for i in order)
