"""Which library an array belongs to: the bound engine is written against the array API standard."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace as standard_namespace
from array_api_compat import is_torch_array

__all__ = ["array_namespace", "is_torch_array"]


def array_namespace(*arrays: Any) -> Any:
    """The functions of the array API standard for some arrays, of numpy or of torch.

    numpy itself keeps to the standard since 2.1. The wrapper of array_api_compat imports all of numpy, compilers
    and tests included, which takes longer than most questions.
    """
    if all(isinstance(array, np.ndarray) for array in arrays):
        return np
    return standard_namespace(*arrays)
