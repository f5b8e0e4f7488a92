"""Semidefinite bounds hold at all points of the set and of its parts, whatever the evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mipverify_check import onnx_file
from mipverify_check.arithmetic import EXACT, FLOATS, Arithmetic
from mipverify_check.bounds import aim, interval
from mipverify_check.errors import RejectedError
from mipverify_check.input_set import InputSet
from mipverify_check.network import Network
from mipverify_check.operators import lowered
from mipverify_check.semidefinite import Lifted, least_margin, lift

from tests.checker.making import dense


def lifted(seed: int, folder: Path, arithmetic: Arithmetic = FLOATS) -> tuple[Network, Lifted, InputSet, np.ndarray]:
    """A network of one hidden layer, its output 0 as a function of the box, and its unstable units."""
    rng = np.random.default_rng(seed)
    onnx.save(dense(rng, [4, 9, 2]), folder / "net.onnx")
    network = lowered(onnx_file.read(str(folder / "net.onnx")), arithmetic)
    center = rng.normal(size=(4, 1))
    inputs = InputSet(arithmetic, arithmetic.array(center - 0.7), arithmetic.array(center + 0.7))
    bounds = interval(network, inputs)
    relu = network.relus["r1"][0]
    source = network.nodes[relu].source  # type: ignore[union-attr]
    units = np.flatnonzero(((bounds.lower[source] < 0) & (bounds.upper[source] > 0))[:, 0])
    return network, lift(bounds, aim(network.output.node, np.array([0])), relu, units), inputs, units


def evidence(rng: np.random.Generator, units: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.uniform(0.2, 1.5, size=4), rng.uniform(0.2, 1, size=units + 1)


def bound(given: Lifted, signs: np.ndarray, shares: np.ndarray, alpha: np.ndarray, beta: np.ndarray) -> Any:
    """The bound with beta as small a power of two of it as is accepted."""
    for power in range(-4, 12):
        try:
            return least_margin(given, signs, shares, alpha, beta * 2.0**power)
        except RejectedError:
            continue
    raise AssertionError("no multiple of beta is large enough")


@pytest.mark.parametrize("seed", range(20))
def test_the_bound_holds_at_all_points_of_a_part(seed: int, tmp_path: Path) -> None:
    network, given, inputs, units = lifted(seed, tmp_path)
    rng = np.random.default_rng(seed)
    points = inputs.lower + (inputs.upper - inputs.lower) * np.round(rng.uniform(-0.2, 1.2, size=(4, 4000)), 1).clip(
        0, 1
    )
    values = network.values(points)
    z, output = values[1] if len(values[1]) == 9 else values[2], values[network.output.node][0]
    for _ in range(6):
        signs = rng.choice([0, 0, 1, -1], len(units))
        inside = (z[units] * signs[:, None] >= 0).all(0)
        found = bound(given, signs, rng.uniform(-0.5, 1.5, len(units)), *evidence(rng, len(units)))
        if inside.any():
            assert found <= output[inside].min() + 1e-9


def test_floats_are_no_tighter_than_rational_numbers(tmp_path: Path) -> None:
    for seed in range(4):
        found = []
        for arithmetic in (FLOATS, EXACT):
            _, given, _, units = lifted(seed, tmp_path, arithmetic)
            rng = np.random.default_rng(seed)
            signs, shares = rng.choice([0, 0, 1, -1], len(units)), rng.uniform(0, 1, len(units))
            found.append(bound(given, signs, shares, *evidence(rng, len(units))))
        assert found[0] <= found[1]
        assert float(found[0]) == pytest.approx(float(found[1]), abs=1e-9)


def test_a_matrix_that_is_not_semidefinite_proves_nothing(tmp_path: Path) -> None:
    _, given, _, units = lifted(0, tmp_path)
    nothing = np.zeros(len(units) + 1)
    with pytest.raises(RejectedError):
        least_margin(given, np.zeros(len(units), int), np.zeros(len(units)), np.ones(4), nothing)
    with pytest.raises(RejectedError):
        least_margin(given, np.zeros(len(units), int), np.zeros(len(units)), np.zeros(4), nothing + 100)


def test_unstable_units_beside_those_that_are_named_are_refused(tmp_path: Path) -> None:
    network, _, inputs, units = lifted(0, tmp_path)
    bounds, relu = interval(network, inputs), network.relus["r1"][0]
    with pytest.raises(RejectedError):
        lift(bounds, aim(network.output.node, np.array([0])), relu, units[1:])
