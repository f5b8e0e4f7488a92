"""Weights and bounds at the ends of the floating-point range: neither rounding nor underflow may prove anything."""

from __future__ import annotations

import numpy as np
import pytest
from mipverify.presolve import crown, fast_lin, interval, optimized_crown

from mipverify.engine import verify
from tests.soundness.nets import dense, exact_output, question

# z = c - 1e-25 relu(1e-25 x), which is negative for the last of x in [0, 1e20] only; its coefficient by x, 1e-50, is
# beyond float32, in which the first passes calculate. y = 1e30 relu(-z).
C = 9.5e-31
UNDERFLOW = [([[1e-25, 0]], [0]), ([[-1e-25], [1]], [C, 0]), ([[1e30, 1e5]], [-C * 1e30])]


@pytest.mark.parametrize("method", [interval, fast_lin, crown, optimized_crown], ids=lambda m: m.__name__)
def test_coefficients_that_underflow_are_no_proof_of_a_sign(method) -> None:  # type: ignore[no-untyped-def]
    network = dense(UNDERFLOW)
    bounds = method(network, np.zeros((1, 2)), np.array([[1e20, 1.0]]))
    z = exact_output(UNDERFLOW[:2], [1e20, 0])[0]
    assert z < 0
    assert bounds.lower[3][0, 0] <= z


@pytest.mark.parametrize("solver", ["auto", "bab", "highs"])
def test_a_violation_behind_an_underflow_is_no_proof(solver: str) -> None:
    verdict = verify(dense(UNDERFLOW), question([0, 0], [1e20, 1], [[([-1.0], -0.01)]]), timeout=5, solver=solver)
    assert verdict.verdict == "violated"
