"""Linear maps and their adjoints are those of their matrices, however rows are held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mipverify_check import onnx_file
from mipverify_check.arithmetic import EXACT, FLOATS, Arithmetic
from mipverify_check.maps import Coefficients, Map, Places, Product, adjoint, rows
from mipverify_check.network import Affine
from mipverify_check.operators import lowered
from onnx import helper

from tests.checker.making import model
from tests.checker.test_operators import CASES


def maps(built: Any, folder: Path, arithmetic: Arithmetic = FLOATS) -> list[Map]:
    """All linear maps of a network."""
    onnx.save(built, folder / "net.onnx")
    network = lowered(onnx_file.read(str(folder / "net.onnx")), arithmetic)
    return [linear for node in network.nodes if isinstance(node, Affine) for _, linear in node.terms]


@pytest.mark.parametrize("name", CASES)
def test_adjoint_and_absolute_values_are_those_of_the_matrix(name: str, tmp_path: Path) -> None:
    for linear in maps(CASES[name], tmp_path):
        matrix = linear.apply(np.eye(linear.inputs))
        np.testing.assert_allclose(linear.adjoint(np.eye(linear.outputs)), matrix.T, rtol=1e-12)
        np.testing.assert_allclose(linear.adjoint(np.asfortranarray(np.eye(linear.outputs))), matrix.T, rtol=1e-12)
        assert (linear.apply(np.eye(linear.inputs), absolute=True) >= np.abs(matrix) * (1 - 1e-12)).all()
        np.testing.assert_allclose(
            linear.adjoint(np.eye(linear.outputs), absolute=True).T, linear.apply(np.eye(linear.inputs), absolute=True)
        )
        units = np.random.default_rng(0).integers(0, linear.outputs, 5)
        signs = np.array([1.0, -1, 0, 1, -1])
        np.testing.assert_allclose(rows(linear, units, signs).dense(), matrix[units].T * signs, rtol=1e-12)


@pytest.mark.parametrize("pads", [0, 1])
@pytest.mark.parametrize("groups", [1, 2])
def test_windows_of_windows_are_passed_as_whole_rows_are(pads: int, groups: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    constants = {
        "a": rng.normal(size=(4, 2 // groups, 3, 3)).astype(np.float32),
        "b": rng.normal(size=(3, 4, 2, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], pads=[pads] * 4, group=groups),
        helper.make_node("Conv", ["h", "b"], ["y"], pads=[pads] * 4, strides=[2, 2]),
    ]
    first, second = maps(model(nodes, constants, [1, 2, 9, 9]), tmp_path)
    units = np.arange(second.outputs)
    held = rows(second, units, np.ones(len(units)))
    assert held.places is not None
    assert isinstance(first, Product)
    assert (first.adjoint_of_windows(held) is not None) == (groups == 1)
    np.testing.assert_allclose(adjoint(first, held).dense(), first.adjoint(held.dense()), rtol=1e-12, atol=1e-14)
    # Rows whose entries are no windows of places are passed as whole rows.
    shuffled = Coefficients(held.values, Places(np.roll(held.places.table, 1, axis=0), held.places.size), held.which)
    np.testing.assert_allclose(
        adjoint(first, shuffled).dense(), first.adjoint(shuffled.dense()), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("exact", [False, True])
def test_what_rows_make_of_vectors_is_what_their_coefficients_do(exact: bool, tmp_path: Path) -> None:
    """Also where it is computed by the map as a whole, and where windows read windows of windows."""
    rng = np.random.default_rng(1)
    constants = {
        name: rng.integers(-4, 5, size=size).astype(np.float32)
        for name, size in {"a": (2, 1, 2, 2), "b": (2, 2, 2, 2), "c": (3, 2, 3, 3)}.items()
    }
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], pads=[1, 0, 0, 1], strides=[2, 2]),
        helper.make_node("Conv", ["h", "b"], ["i"], pads=[1, 1, 0, 0]),
        helper.make_node("Conv", ["i", "c"], ["y"], pads=[1] * 4),
    ]
    size = 16 if exact else 20
    chain = maps(model(nodes, constants, [1, 1, size, size]), tmp_path, EXACT if exact else FLOATS)
    arithmetic = EXACT if exact else FLOATS
    units = np.arange(chain[2].outputs)
    signs = arithmetic.array(rng.integers(-1, 2, len(units)))
    held = rows(chain[2], units, signs)
    assert held.of_map is not None
    assert rows(chain[2], units[:1], signs[:1]).of_map is None
    for below in (chain[1], chain[0], None):
        dense, factor, vector = (
            held.dense(),
            *(arithmetic.array(rng.integers(0, 9, size=(len(held.dense()), 1))) for _ in range(2)),
        )
        assert (held.times(vector) == (dense * vector).sum(0)).all()
        assert (held.times(vector, absolute=True) == (np.abs(dense) * vector).sum(0)).all()
        held = held.scaled(factor)
        assert (held.dense() == dense * factor).all()
        assert (held.times(vector) == (dense * factor * vector).sum(0)).all()
        assert (held.times(vector, absolute=True) == (np.abs(dense * factor) * vector).sum(0)).all()
        if below is not None:
            expected = below.adjoint(held.dense())
            held = adjoint(below, held)
            assert held.places is not None, "windows through all of them"
            assert (held.dense() == expected).all()


def test_windows_of_different_forms_are_passed_as_whole_rows() -> None:
    """Two windows that read the same entry by different weights, and one whose mate reads the padding."""
    index = np.array([[[0, 1, 4], [1, 2, -1]]])
    below = Product(np.array([[[1.0, 10.0]]]), index, 5)
    for table in ([[0, 1], [1, 0]], [[0, 2], [1, 1]], [[0, -1], [1, 2]]):
        held = Coefficients(np.array([[3.0, 5.0], [7.0, 11.0]]), Places(np.array(table), 3), np.arange(2))
        clean = held.with_values(np.where(np.array(table) < 0, 0, held.values))
        expected = below.adjoint(clean.dense())
        assert (adjoint(below, clean).dense() == expected).all(), table
