"""A network with the values that its parameters have now: what is proven is proven of them."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np

from mipverify.errors import InputError
from mipverify.network.arrays import is_torch_array
from mipverify.network.graph import Affine, Network, Term
from mipverify.network.operators import Array, Operator, Transposed, _Weighted


def snapshot(network: Network) -> Network:
    """The network with copies of its torch parameters as numpy arrays; itself where it has none.

    Raises InputError for anything that is no Network.
    """
    if not isinstance(network, Network):
        raise InputError(
            f"a Network is needed, not {type(network).__name__}: mipverify.load(path) and "
            "mipverify.Network.from_torch(module, input_shape) make one"
        )
    nodes = tuple(_numpy_node(node) if isinstance(node, Affine) else node for node in network.nodes)
    changed = any(new is not old for new, old in zip(nodes, network.nodes, strict=True))
    return replace(network, nodes=nodes) if changed else network


def _numpy_node(node: Affine) -> Affine:
    arrays = [node.bias, node.magnitude, *(p for term in node.terms for p in term.operator.parameters())]
    if not any(is_torch_array(array) for array in arrays):
        return node
    terms = tuple(Term(term.source, _numpy_operator(term.operator)) for term in node.terms)
    return replace(node, terms=terms, bias=_numpy(node.bias), magnitude=_numpy(node.magnitude))


def _numpy_operator(operator: Operator) -> Operator:
    operator = copy(operator)
    if isinstance(operator, Transposed):
        operator.inner = _numpy_operator(operator.inner)
    elif isinstance(operator, _Weighted) and is_torch_array(operator.weight):
        operator.weight = _numpy(operator.weight)  # the copy has no casts of the old one
    return operator


def _numpy(array: Array) -> np.ndarray | None:
    return array.detach().cpu().numpy().copy() if is_torch_array(array) else array
