"""The domain of a distance is what was written: no witness lies outside of it, not by a rounding."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from mipverify import minimum_distortion
from mipverify.network import Network
from tests.soundness.nets import dense


def threshold(limit: str) -> Network:
    """Class 0 below float32(limit) of the first of two inputs, a tie there."""
    return dense([(np.array([[0, 0], [1, 0]]), np.array([np.float32(limit), 0]))])


@pytest.mark.parametrize("norm", ["linf", "l1", "l2"])
def test_a_float32_beyond_the_domain_is_no_witness(norm: str) -> None:
    # float32(0.3) exceeds 0.3: no legal float32 reaches it, though the center rounds to it.
    found = minimum_distortion(
        threshold("0.3"), np.array([0.3, 0.05]), 0, norm=norm, domain=("0", "0.3"), timeout=20, gap=1e-3
    )
    assert found.witness is None
    assert found.status == "none"


@pytest.mark.parametrize("norm", ["linf", "l1", "l2"])
@pytest.mark.parametrize("high", ["0.30000002", "0.3001", "0.4"])
def test_a_witness_lies_in_the_domain_exactly(norm: str, high: str) -> None:
    found = minimum_distortion(
        threshold("0.3"), np.array([0.2, 0.05]), 0, norm=norm, domain=("0", high), timeout=20, gap=1e-3
    )
    assert found.witness is not None
    assert all(0 <= Fraction(float(v)) <= Fraction(high) for v in found.witness.input.reshape(-1))
    assert found.status == "optimal"


@pytest.mark.parametrize("value", [0.3, 0.1, 0.30000001192092896])
def test_an_image_that_is_wrong_as_the_network_gets_it_is_at_distance_zero(value: float) -> None:
    network = threshold("0.05")
    found = minimum_distortion(network, np.array([value, 0.05]), 0, timeout=20)
    assert found.status == "optimal"
    assert found.lower == 0
    assert found.upper is not None
    assert found.upper <= 3e-8, "what rounding to float32 moves it"
