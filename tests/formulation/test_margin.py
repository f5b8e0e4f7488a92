"""Margins of conditions as outputs of a network: their values, whatever the number of conditions and of their rows."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from mipverify.engine import verify
from mipverify.formulation import margin
from mipverify.formulation.margin import margin_network
from mipverify.network.operators import Dense, Sparse
from mipverify.specification import Box, Case, Condition, Specification
from mipverify.specification.conditions import Row
from tests.soundness.nets import dense, random_layers

INPUTS, OUTPUTS = 4, 5


def conditions(rng: np.random.Generator, sizes: list[int], with_inputs: bool) -> list[Condition]:
    def entries(count: int) -> dict[int, Fraction]:
        return {int(i): Fraction(float(rng.normal())) for i in rng.permutation(count)[: rng.integers(1, 3)]}

    def row() -> Row:
        inputs = entries(INPUTS) if with_inputs and rng.random() < 0.5 else {}
        return Row(entries(OUTPUTS), inputs, Fraction(float(rng.normal())))

    return [Condition.from_rows([row() for _ in range(size)], INPUTS, OUTPUTS) for size in sizes]


@pytest.mark.parametrize("entries", [0, 2**16], ids=["sparse", "dense"])
@pytest.mark.parametrize("with_inputs", [False, True])
@pytest.mark.parametrize("sizes", [[1, 1, 1], [3, 1, 4, 2, 7], [1, 5, 1], [8]])
def test_margins_are_the_largest_row_of_each_condition(
    sizes: list[int], with_inputs: bool, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(margin, "DENSE_ENTRIES", entries)
    rng = np.random.default_rng(len(sizes))
    network = dense(random_layers(rng, (INPUTS, 6, OUTPUTS)))
    asked = conditions(rng, sizes, with_inputs)
    margins = margin_network(network, asked)
    operators = [term.operator for node in margins.nodes[len(network.nodes) :] for term in getattr(node, "terms", ())]
    assert isinstance(operators[0], Dense if entries else Sparse)
    x = rng.normal(size=(20, INPUTS))
    y = network.forward(x)
    expected = np.stack([condition.margin(y, x).max(axis=-1) for condition in asked], axis=1)
    np.testing.assert_allclose(margins.forward(x), expected, rtol=1e-12, atol=1e-12)


def test_rows_of_a_sparse_operator_are_those_of_its_matrix() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(6, 4)) * (rng.random((6, 4)) < 0.5)
    units = np.array([4, 0, 4])
    np.testing.assert_array_equal(Sparse(matrix, (4,), (6,)).rows(units, np.zeros(0)), matrix[units])


def test_a_hundred_thousand_conditions_are_decided_in_memory_that_is_linear_in_them() -> None:
    network = dense(random_layers(np.random.default_rng(1), (INPUTS, 6, OUTPUTS)))
    count = 100_000
    # All the same one, of two rows: building exact rows is not what is measured.
    template = Condition.from_rows([Row({0: Fraction(1)}, {}, Fraction(-(10**6)))] * 2, INPUTS, OUTPUTS)
    box = Box.from_exact([Fraction(0)] * INPUTS, [Fraction(1)] * INPUTS)
    tracemalloc.start()
    verdict = verify(network, Specification((Case(box, (template,) * count),), "vnnlib"), timeout=20.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (verdict.verdict, verdict.stage) == ("holds", "interval")
    assert peak < 2000 * count
