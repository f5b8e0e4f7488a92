"""Rows of convolutions that follow each other without a ReLU: nothing is read from beyond the border between them."""

from __future__ import annotations

import numpy as np
import torch
from mipverify.presolve import crown, interval

from mipverify.network import Network


def test_padded_convolutions_in_a_row_have_the_bounds_of_their_product() -> None:
    torch.manual_seed(0)
    first, second = (torch.nn.Conv2d(2, 2, 3, padding=1) for _ in range(2))
    last = torch.nn.Conv2d(2, 1, 3, padding=1)
    module = torch.nn.Sequential(first, second, torch.nn.ReLU(), last).eval()
    network = Network.from_torch(module, (2, 10, 10))
    low, high = np.full((1, 2, 10, 10), -1.0), np.full((1, 2, 10, 10), 1.0)
    found = crown(interval(network, low, high))
    (relu,) = network.relus
    node = network.relu_source(relu)
    linear = torch.nn.Sequential(first, second).double()
    with torch.no_grad():
        offset = linear(torch.zeros(1, 2, 10, 10, dtype=torch.float64))[0].numpy().reshape(-1)
        units = torch.eye(200, dtype=torch.float64).reshape(200, 2, 10, 10)
        reach = np.abs(linear(units).numpy().reshape(200, -1) - offset).sum(axis=0)
    np.testing.assert_allclose(found.upper[node].reshape(-1), offset + reach, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.lower[node].reshape(-1), offset - reach, rtol=0, atol=1e-5)
