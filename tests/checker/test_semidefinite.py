"""Semidefinite bounds lie below what the network does, whatever the evidence is, and are worth something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from mipverify_check import onnx_file, operators
from mipverify_check.arithmetic import EXACT, FLOATS, Arithmetic
from mipverify_check.bounds import Aim, Bounds, interval
from mipverify_check.errors import RejectedError
from mipverify_check.input_set import InputSet
from mipverify_check.network import Relu
from mipverify_check.semidefinite import raised

from tests.checker.making import dense

INPUTS, UNITS = 4, 7


class Given:
    """Stands for the arrays of a proof."""

    def __init__(self, **arrays: np.ndarray):
        self.arrays = arrays

    def array(self, name: str, shape: object, kinds: str, limit: int | None = None) -> np.ndarray:
        return self.arrays[name]


def bounds_of(path: Path, sizes: list[int], seed: int, arithmetic: Arithmetic) -> Bounds:
    onnx.save(dense(np.random.default_rng(seed), sizes), path)
    network = operators.lowered(onnx_file.read(str(path)), arithmetic)
    lower, upper = -np.ones((sizes[0], 1)), np.ones((sizes[0], 1))
    return interval(network, InputSet(arithmetic, arithmetic.array(lower), arithmetic.array(upper)))


def bound(bounds: Bounds, given: Given, splits: dict, leaves: int) -> np.ndarray:
    network = bounds.network
    relu = next(k for k, node in enumerate(network.nodes) if isinstance(node, Relu))
    aim = Aim(network.output.node, np.array([0]), np.ones(1))
    names = {name: name for name in ("leaves", "units", "shares", "alpha", "beta")} | {"site": 0}
    source = network.nodes[relu].source
    found = raised(given, names, bounds, aim, relu, {source: splits} if splits else {}, np.full(leaves, -np.inf))
    return np.array([float(v) for v in found])


def evidence(rng: np.random.Generator, leaves: int, units: np.ndarray, strength: float) -> Given:
    return Given(
        leaves=np.arange(leaves),
        units=units,
        shares=rng.random((leaves, len(units))).astype(np.float32),
        alpha=(strength * (0.2 + rng.random((leaves, INPUTS)))).astype(np.float32),
        beta=(strength * (0.5 + rng.random((leaves, len(units) + 1)))).astype(np.float32),
    )


@pytest.mark.parametrize("seed", range(12))
def test_bounds_are_below_all_values_in_both_arithmetics(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    found = {}
    for strength in (0.5, 1.0, 2.0, 5.0):
        given = evidence(rng, 2, np.arange(UNITS), strength)
        unit = int(rng.integers(UNITS))
        splits = (np.array([unit, unit]), np.array([0, 1]), np.array([1, -1]))
        for arithmetic in (FLOATS, EXACT):
            bounds = bounds_of(tmp_path / "net.onnx", [INPUTS, UNITS, 2], seed, arithmetic)
            found[arithmetic.exact] = bound(bounds, given, splits, 2)
        points = rng.uniform(-1, 1, (INPUTS, 4000))
        corners = np.sign(rng.normal(size=(INPUTS, 4000)))
        values = bounds_of(tmp_path / "net.onnx", [INPUTS, UNITS, 2], seed, FLOATS).network.values(
            np.concatenate([points, corners], axis=1)
        )
        z, y = values[1][unit], values[-1][0]
        for leaf, side in enumerate((z >= 0, z <= 0)):
            least = y[side].min() if side.any() else np.inf
            assert found[False][leaf] <= least
            assert found[True][leaf] <= least
            if np.isfinite(found[False][leaf]):
                assert found[False][leaf] <= found[True][leaf]
                assert found[True][leaf] - found[False][leaf] < 1e-9 * (1 + abs(found[True][leaf]))


def test_strong_enough_variables_prove_something(tmp_path: Path) -> None:
    bounds = bounds_of(tmp_path / "net.onnx", [INPUTS, UNITS, 2], 0, FLOATS)
    given = evidence(np.random.default_rng(0), 1, np.arange(UNITS), 5.0)
    assert np.isfinite(bound(bounds, given, {}, 1)).all()


def test_weak_variables_prove_nothing(tmp_path: Path) -> None:
    bounds = bounds_of(tmp_path / "net.onnx", [INPUTS, UNITS, 2], 0, FLOATS)
    given = evidence(np.random.default_rng(0), 1, np.arange(UNITS), 1e-3)
    given.arrays["shares"][:] = 0
    assert bound(bounds, given, {}, 1)[0] == -np.inf


def test_units_that_are_left_out_are_missed(tmp_path: Path) -> None:
    bounds = bounds_of(tmp_path / "net.onnx", [INPUTS, UNITS, 2], 0, FLOATS)
    given = evidence(np.random.default_rng(0), 1, np.arange(UNITS - 1), 5.0)
    with pytest.raises(RejectedError, match="unstable"):
        bound(bounds, given, {}, 1)


def test_a_second_unstable_layer_is_refused(tmp_path: Path) -> None:
    bounds = bounds_of(tmp_path / "net.onnx", [INPUTS, UNITS, 5, 2], 0, FLOATS)
    given = evidence(np.random.default_rng(0), 1, np.arange(UNITS), 5.0)
    with pytest.raises(RejectedError, match="unstable"):
        bound(bounds, given, {}, 1)
