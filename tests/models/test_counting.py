"""Counts of undecided units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mipverify.models import input_box, unstable_units
from mipverify.models.traced import detached
from mipverify.presolve import crown, interval
from torch import nn

from mipverify.errors import InputError
from tests.models.nets import EPS, NAMES, case


def test_by_hand() -> None:
    """z = x - 0.5 and x - 0.2 over [0.4, 0.6] and over [0.1, 0.3]."""
    module = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        module[0].weight.fill_(1.0)
        module[0].bias.copy_(torch.tensor([-0.5, -0.2]))
    found = unstable_units(module, torch.tensor([[0.5], [0.2]]), 0.1)
    assert found.counts.tolist() == [[1], [1]]
    assert found.units == (2,)
    assert unstable_units(module, torch.tensor([[0.35]]), 0.2).counts.tolist() == [[2]]
    assert unstable_units(module, torch.tensor([[0.35]]), 0.2, domain=(0.3, 1.0)).counts.tolist() == [[1]]
    assert "1.0/2" in str(found)


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_those_of_presolve(name: str) -> None:
    module, traced, x = case(name)
    network = detached(traced.network)
    boxes = [side.numpy().reshape(-1, *network.input_shape) for side in input_box(x, EPS)]
    expected = crown(interval(network, *boxes)).unstable_counts()
    found = unstable_units(module, x, EPS, bounds="crown")
    np.testing.assert_array_equal(found.counts, expected)
    wide = unstable_units(traced, x.numpy(), EPS)
    assert (wide.counts >= found.counts).all()
    assert wide.counts.sum() > 0
    np.testing.assert_allclose(wide.mean, wide.counts.mean(0))
    assert len(wide.layers) == len(wide.units) == wide.counts.shape[1] == len(network.relus)


def test_present_weights_are_used() -> None:
    module, traced, x = case("dense")
    assert unstable_units(traced, x, EPS).counts.sum() > 0
    with torch.no_grad():
        for part in module:
            if isinstance(part, nn.Linear):
                part.bias.fill_(100.0)
    assert unstable_units(traced, x, EPS).counts.sum() == 0


def test_bad_arguments_are_refused() -> None:
    _, traced, x = case("dense")
    with pytest.raises(InputError, match="lp"):
        unstable_units(traced, x, EPS, bounds="lp")
    with pytest.raises(InputError, match="eps"):
        unstable_units(traced, x, float("nan"))
