"""Linear maps and their adjoints are those of their matrices, however rows are held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mipverify_check import onnx_file
from mipverify_check.arithmetic import FLOATS
from mipverify_check.maps import Map, Product, adjoint, rows
from mipverify_check.network import Affine
from mipverify_check.operators import lowered
from onnx import helper

from tests.checker.making import model
from tests.checker.test_operators import CASES


def maps(built: Any, folder: Path) -> list[Map]:
    """All linear maps of a network."""
    onnx.save(built, folder / "net.onnx")
    network = lowered(onnx_file.read(str(folder / "net.onnx")), FLOATS)
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
    assert held.index is not None
    assert isinstance(first, Product)
    assert (first.adjoint_of_window(held) is not None) == (groups == 1)
    np.testing.assert_allclose(adjoint(first, held).values, first.adjoint(held.dense()), rtol=1e-12, atol=1e-14)
    # Rows whose entries are no windows of places are passed as whole rows.
    shuffled = type(held)(held.values, np.roll(held.index, 1, axis=0), held.size)
    np.testing.assert_allclose(adjoint(first, shuffled).values, first.adjoint(shuffled.dense()), rtol=1e-12, atol=1e-14)
