"""Operations of torch modules that change a tensor in place: in a graph, and on what else they change there."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from mipverify.network.builder import RewriteError, Tensor
from mipverify.network.torch_functions import MOVING
from mipverify.network.torch_layers import MOVING_LAYERS, UNCHANGED_LAYERS

_ASSIGNMENTS = (operator.iadd, operator.isub, operator.imul, operator.itruediv)  # of Python
# What may give a view of its first argument, or that argument itself: the data types decide.
_VIEWS = {*MOVING, "contiguous", "detach", "double", "dropout", "float", "getattr", "getitem", "to", "type", "type_as"}


class InPlaceTracer(fx.Tracer):
    """A tracer that records `h += 1` as the operation in place that it is; that of torch records an addition."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """What stands for the value of a node while the module's code runs."""
        return _Proxy(node, self)


class _Proxy(fx.Proxy):
    def __iadd__(self, other: Any) -> fx.Proxy:
        return self._assigned(operator.iadd, other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return self._assigned(operator.isub, other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return self._assigned(operator.imul, other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self._assigned(operator.itruediv, other)

    def _assigned(self, function: Any, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})


class Memory:
    """Which nodes of a graph may hold the same memory, entered in the order in which they run."""

    def __init__(self, traced: fx.GraphModule):
        self._traced = traced
        self._place = {node: place for place, node in enumerate(traced.graph.nodes)}
        self._same: dict[fx.Node, list[fx.Node]] = {}  # nodes that are one tensor
        self._shared: dict[fx.Node, list[fx.Node]] = {}  # nodes that may be views of one memory

    def changed_by(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> list[fx.Node]:
        """The nodes before `node` whose value is that of `node` from now on.

        Raises RewriteError where a view of them that is read later would change, too.
        """
        source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if source is None or not isinstance(values.get(source), (Tensor, torch.Tensor, tuple)):
            return []  # numbers do not change
        in_place = self._is_in_place(node)
        if in_place or self._is_view(node):
            _join(self._shared, source, node)
        if not in_place:
            return []
        _join(self._same, source, node)
        same = self._same[node]
        for other in self._shared[node]:
            if other not in same and any(self._place[user] > self._place[node] for user in other.users):
                raise RewriteError(f"it changes {str(other)!r} in place, which is read later: do not work in place")
        return [other for other in same if other is not node]

    def _is_in_place(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return getattr(self._traced.get_submodule(str(node.target)), "inplace", False) is True
        return node.target in _ASSIGNMENTS or _ends_in_place(_name(node)) or node.kwargs.get("inplace", False) is True

    def _is_view(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            layer: nn.Module = self._traced.get_submodule(str(node.target))
            return isinstance(layer, (*MOVING_LAYERS, *UNCHANGED_LAYERS))
        return _name(node) in _VIEWS


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _ends_in_place(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def _join(groups: dict[fx.Node, list[fx.Node]], one: fx.Node, other: fx.Node) -> None:
    """Make one group of those of two nodes."""
    first, second = groups.setdefault(one, [one]), groups.setdefault(other, [other])
    if first is not second:
        first += second
        for node in second:
            groups[node] = first
