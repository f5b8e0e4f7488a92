"""Weights and bounds at the ends of the floating-point range: neither rounding nor underflow may prove anything."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from mipverify.presolve import crown, fast_lin, interval, optimized_crown

from mipverify.engine import verify
from mipverify.proof.bounds import Bounds
from tests.soundness.nets import dense, exact_output, question, random_layers

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow is what is asked for

# z = c - 1e-25 relu(1e-25 x), which is negative for the last of x in [0, 1e20] only; its coefficient by x, 1e-50, is
# beyond float32, in which the first passes calculate. y = 1e30 relu(-z).
C = 9.5e-31
UNDERFLOW = [([[1e-25, 0]], [0]), ([[-1e-25], [1]], [C, 0]), ([[1e30, 1e5]], [-C * 1e30])]


@pytest.mark.parametrize("method", [interval, fast_lin, crown, optimized_crown], ids=lambda m: m.__name__)
def test_coefficients_that_underflow_are_no_proof_of_a_sign(method: Callable[..., Bounds]) -> None:
    bounds = interval(dense(UNDERFLOW), np.zeros((1, 2)), np.array([[1e20, 1.0]]))
    bounds = bounds if method is interval else method(bounds)
    z = exact_output(UNDERFLOW[:2], [1e20, 0])[0]
    assert z < 0
    assert bounds.lower[3][0, 0] <= z


@pytest.mark.parametrize("solver", ["auto", "bab", "highs"])
def test_a_violation_behind_an_underflow_is_no_proof(solver: str) -> None:
    verdict = verify(dense(UNDERFLOW), question([0, 0], [1e20, 1], [[([-1.0], -0.01)]]), timeout=5, solver=solver)
    assert verdict.verdict == "violated"


@pytest.mark.parametrize("solver", ["auto", "highs", "cbc"])
@pytest.mark.parametrize("inputs", [3, 14])
def test_values_beyond_float64_prove_nothing_and_raise_nothing(inputs: int, solver: str) -> None:
    rng = np.random.default_rng(inputs)
    layers = [(w * np.float32(1e38), b) for w, b in random_layers(rng, (inputs, *[4] * 9, 2))]
    asked = question([0] * inputs, [1] * inputs, [[([1.0, -1.0], -100)]])
    verdict = verify(dense(layers), asked, timeout=0.5, solver=solver)
    assert verdict.verdict == "unknown"


@pytest.mark.parametrize("solver", ["auto", "highs"])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_prove_nothing(value: float, place: int, solver: str) -> None:
    layers = random_layers(np.random.default_rng(place), (3, 6, 5, 2))
    layers[place][0][0, 0] = value
    asked = question([0] * 3, [1] * 3, [[([1.0, -1.0], -100)]])
    assert verify(dense(layers), asked, timeout=0.3, solver=solver).verdict == "unknown"


@pytest.mark.parametrize("solver", ["auto", "bab", "highs", "cbc"])
@pytest.mark.parametrize("size", [1e6, 1e8, 1e12, 1e20])
def test_cancellation_of_large_numbers(size: float, solver: str) -> None:
    # relu(x0 + size) - size - x1 = x0 - x1, of which float32 keeps nothing from 1e8 on, and float64 from 1e17 on.
    layers = [([[1, 0], [0, 1]], [size, 0]), ([[1, -1]], [-np.float32(size)]), ([[1]], [0])]
    assert exact_output(layers, [0.75, 0.5]) == [Fraction(1, 4)]
    network = dense(layers)
    for threshold in (0.0, 0.125, 0.249):
        asked = question([0.25, 0.5], [0.75, 0.5], [[([-1.0], -threshold)]])
        assert verify(network, asked, timeout=0.5, solver=solver).verdict != "holds"
    if size == 1e6:
        never = question([0.25, 0.5], [0.75, 0.5], [[([-1.0], -0.3)]])
        assert verify(network, never, timeout=2, solver=solver).verdict == "holds"


@pytest.mark.parametrize("solver", ["auto", "bab", "highs"])
@pytest.mark.parametrize("gap", [2.0**-30, 2.0**-20, 0.0, -(2.0**-20)])
def test_thresholds_in_the_last_places(gap: float, solver: str) -> None:
    # y = relu(x - 1/2) + relu(1/2 - x) + x / 2, least at x = 1/2, where it is 1/4.
    layers = [([[1.0], [-1.0], [1.0]], [-0.5, 0.5, 0.0]), ([[1.0, 1.0, 0.5]], [0.0])]
    verdict = verify(dense(layers), question([0], [1], [[([1.0], 0.25 - gap)]]), timeout=3, solver=solver)
    if gap > 0:
        assert verdict.verdict != "violated"
    else:
        assert verdict.verdict == "violated"
    if solver != "highs" and gap > 0:
        assert verdict.verdict == "holds"


@pytest.mark.parametrize("solver", ["auto", "bab", "highs", "cbc"])
def test_a_box_that_holds_one_float32(solver: str) -> None:
    layers = random_layers(np.random.default_rng(1), (4, 6, 3))
    x = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    low, high = (np.nextafter(x.astype(np.float64), side) for side in (-np.inf, np.inf))
    y = exact_output(layers, x)
    for shift, expected in ((1e-4, "violated"), (-1e-4, "holds")):
        asked = question(low, high, [[([1.0, -1.0, 0.0], y[0] - y[1] + Fraction(shift))]])
        verdict = verify(dense(layers), asked, timeout=3, solver=solver)
        assert verdict.verdict == expected
        if verdict.witness is not None:
            assert (verdict.witness.input == x).all()


@pytest.mark.parametrize("solver", ["auto", "bab"])
def test_a_very_deep_narrow_network(solver: str) -> None:
    # x -> |x - 1/2| again and again: a zigzag of ever smaller teeth, at most 1/2, whose relaxation is hopeless.
    layers: list = [([[1.0], [-1.0]], [-0.5, 0.5])]
    for k in range(40):
        shift = 2.0 ** -(k % 6 + 2)
        layers.append(([[1.0, 1.0], [-1.0, -1.0]], [-shift, shift]))
    layers.append(([[1.0, 1.0]], [0.0]))
    values = [exact_output(layers, [k / 256])[0] for k in range(257)]
    low, network = min(values), dense(layers)
    verdict = verify(network, question([0], [1], [[([1.0], low + Fraction(1, 1000))]]), timeout=1, solver=solver)
    assert verdict.verdict != "holds"
    verdict = verify(network, question([0], [1], [[([1.0], -1)]]), timeout=1, solver=solver)
    assert verdict.verdict != "violated"
