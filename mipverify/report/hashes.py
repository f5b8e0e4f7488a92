"""Fingerprints of networks and data that come from no file."""

from __future__ import annotations

import hashlib
import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mipverify.network import Network


def hash_arrays(*arrays: NDArray[Any]) -> str:
    """SHA-256 of types, shapes and contents."""
    import numpy as np

    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def hash_network(network: Network) -> str:
    """SHA-256 of the nodes with their parameters, and of what was dropped behind them."""
    content = (network.nodes, network.output, network.dropped, network.double)
    return hashlib.sha256(pickle.dumps(content, protocol=5)).hexdigest()
