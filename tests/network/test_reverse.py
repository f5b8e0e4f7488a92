"""The reverse traversal meets every node once, after all of its readers, with the sum of what these left for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense, Identity
from mipverify.network.reverse import through_terms, walk_back


def branching() -> Network:
    """x -> a = W x; b = relu(a); c = V b + a (a read twice); d, which nobody reads."""
    rng = np.random.default_rng(0)
    w, v = rng.integers(-3, 4, (3, 2)).astype(float), rng.integers(-3, 4, (3, 3)).astype(float)
    nodes = (
        Input((2,)),
        Affine((3,), (Term(0, Dense(w)),), np.ones(3)),
        Relu((3,), 1),
        Affine((3,), (Term(0, Dense(w)),)),
        Affine((3,), (Term(2, Dense(v)), Term(1, Identity((3,))))),
    )
    return Network(nodes, 4)


def test_a_node_is_met_once_with_what_all_its_readers_left() -> None:
    network = branching()
    met: list[tuple[int, np.ndarray]] = []

    def affine(index: int, node: Affine, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        met.append((index, rows))
        return through_terms(network, node, rows)

    def relu(index: int, node: Relu, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        met.append((index, rows))
        yield node.source, 2 * rows

    start = np.eye(3)
    reached = walk_back(network, {4: start}, relu, affine)
    assert [index for index, _ in met] == [4, 2, 1]
    v, w = network.nodes[4].terms[0].operator.weight, network.nodes[1].terms[0].operator.weight
    np.testing.assert_array_equal(met[2][1], 2 * v + np.eye(3))
    np.testing.assert_array_equal(reached, (2 * v + np.eye(3)) @ w)


def test_what_starts_at_several_nodes_is_added_to_what_passes_by() -> None:
    network = branching()

    def affine(_: int, node: Affine, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        return through_terms(network, node, rows)

    def relu(_: int, node: Relu, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        yield node.source, rows

    ones = np.ones((1, 3))
    both = walk_back(network, {4: ones, 1: ones}, relu, affine)
    one, other = walk_back(network, {4: ones}, relu, affine), walk_back(network, {1: ones}, relu, affine)
    np.testing.assert_array_equal(both, one + other)


def test_nothing_reaches_the_input_of_a_constant() -> None:
    network = Network((Input((2,)), Affine((1,), (), np.ones(1))), 1)
    assert walk_back(network, {1: np.ones((1, 1))}, lambda *_: (), lambda _, node, rows: ()) is None
