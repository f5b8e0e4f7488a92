"""Entries that are no numbers are found, however a sum of them comes out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mipverify.network.arrays import all_finite


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int32])
def test_numbers_are_finite_though_their_sum_is_not(dtype: torch.dtype) -> None:
    large = torch.finfo(dtype).max if dtype.is_floating_point else 2**31 - 1
    array = torch.full((3, 4), large, dtype=dtype)
    assert all_finite(array)
    assert all_finite(array.numpy())
    assert all_finite(torch.zeros(0, dtype=dtype))


@pytest.mark.parametrize("values", [(np.nan,), (np.inf,), (-np.inf,), (np.inf, -np.inf), (np.inf, np.inf, np.nan)])
def test_one_that_is_none_is_found(values: tuple[float, ...]) -> None:
    array = torch.ones(5, 7, requires_grad=True)
    with torch.no_grad():
        array.view(-1)[3 : 3 + len(values)] = torch.tensor(values)
    assert not all_finite(array)
    assert not all_finite(array.detach().numpy())
