"""What is known of a node of one network, said of the same rows in another network that shares the nodes before."""

from __future__ import annotations

import numpy as np

from mipverify.network import Affine
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import SEAL, UnitBounds
from mipverify.proof.input_minimum import lies_in
from mipverify.proof.rows import unit_rows


def restated(outer: Bounds, units: np.ndarray, bounds: Bounds, own: np.ndarray) -> UnitBounds:
    """Bounds of the entries `own` (U,) of the output of `bounds`, as `outer` has them of the entries `units` (U,).

    Both are of batch 1. Raises ValueError unless each entry is the same affine function of the same nodes, over an
    input set within that of `outer`.
    """
    if outer.batch != 1 or bounds.batch != 1 or outer.scope.assumptions is not None:
        raise ValueError("facts are restated of one input set, under which nothing is assumed")
    inside = bool((bounds.lower[0] >= outer.lower[0]).all() and (bounds.upper[0] <= outer.upper[0]).all())
    if not inside or not lies_in(bounds.inputs, outer.inputs):
        raise ValueError("the input set is not seen to lie within that of the facts")
    nodes = tuple(part.network.nodes[part.network.output] for part in (outer, bounds))
    if not all(isinstance(node, Affine) for node in nodes):
        raise ValueError("the outputs are not affine")
    if any(isinstance(node, Affine) and node.rounded is not None and node.rounded.roundings for node in nodes):
        raise ValueError("the outputs are rounded")
    theirs, ours = (
        unit_rows(part.network, part.network.output, chosen, None, np.zeros(1))  # in float64: nothing is rounded off
        for part, chosen in ((outer, units), (bounds, own))
    )
    last = max(theirs.coefficients)
    if outer.network.nodes[: last + 1] != bounds.network.nodes[: last + 1]:  # nodes are compared by identity
        raise ValueError("the rows are not over the same nodes")
    nothing = np.zeros(len(own))
    pairs = [(ours.constant, theirs.constant), (ours.deviation, theirs.deviation)]
    pairs += [(ours.coefficients.get(source), array) for source, array in theirs.coefficients.items()]
    same = theirs.coefficients.keys() == ours.coefficients.keys() and all(
        np.array_equal(nothing if mine is None else mine, nothing if other is None else other) for mine, other in pairs
    )
    if not same:
        raise ValueError("the rows are not the same")
    node = outer.network.output
    low, high = (side[node].reshape(-1)[units] for side in (outer.lower, outer.upper))
    return UnitBounds(bounds.scope, bounds.network.output, None, own, low, high, seal=SEAL)
