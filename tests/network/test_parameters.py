"""Networks over parameters are their original on other inputs, and nothing of it is lost on the way."""

from __future__ import annotations

import numpy as np
import pytest
from mipverify.presolve import interval

from mipverify.network.graph import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense
from mipverify.network.parameters import ParameterMap


def _layer(source: int, size: int, width: int, deviation: float) -> Affine:
    weight = np.random.default_rng(source).normal(size=(size, width))
    bias = np.ones(size)
    return Affine((size,), (Term(source, Dense(weight)),), bias, np.full(size, deviation), np.full(size, 3.0))


@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
@pytest.mark.parametrize("double", [False, True])
def test_what_is_known_of_the_rounding_of_nodes_stays(clip: tuple[float, float] | None, double: bool) -> None:
    nodes = (Input((2,)), _layer(0, 3, 2, 0.25), Relu((3,), 1), _layer(2, 2, 3, 0.5))
    original = Network(nodes, 3, double=double)
    mapped = ParameterMap(original, np.eye(2), np.zeros(2), clip).network()
    assert mapped.double == double
    lower, upper = np.full((1, 2), 0.25), np.full((1, 2), 0.75)
    given, found = (interval(network, lower, upper) for network in (original, mapped))
    np.testing.assert_allclose(found.lower[mapped.output], given.lower[original.output], atol=1e-9)
    np.testing.assert_allclose(found.upper[mapped.output], given.upper[original.output], atol=1e-9)
    magnitudes = [node.magnitude for node in mapped.nodes if isinstance(node, Affine)][-2:]
    assert all(m is not None and (m == 3).all() for m in magnitudes)
