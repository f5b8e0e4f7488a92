"""Which library an array belongs to: the bound engine is written against the array API standard."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace as standard_namespace
from array_api_compat import is_torch_array

__all__ = ["all_finite", "array_namespace", "is_torch_array"]


def array_namespace(*arrays: Any) -> Any:
    """The functions of the array API standard for some arrays, of numpy or of torch.

    numpy itself keeps to the standard since 2.1. The wrapper of array_api_compat imports all of numpy, compilers
    and tests included, which takes longer than most questions.
    """
    if all(isinstance(array, np.ndarray) for array in arrays):
        return np
    return standard_namespace(*arrays)


def all_finite(array: Any) -> bool:
    """Whether no entry of a numpy array or torch tensor is NaN or infinite.

    Of a tensor, as the weights of every step of a training are, the sum is tried first: it takes a tenth of the time,
    and is finite only if all entries are.
    """
    if not is_torch_array(array):
        return bool(np.isfinite(array).all())
    array = array.detach()
    return bool(array.sum().isfinite()) or bool(array.isfinite().all())
