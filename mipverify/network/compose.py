"""Several ONNX models, or one with several inputs and outputs, as one model of one input and one output."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def combined_sha256(networks: Sequence[tuple[str, str]]) -> str:
    """A fingerprint of networks by name and SHA-256; that of a single one without a name is its own."""
    if len(networks) == 1 and not networks[0][0]:
        return networks[0][1]
    return hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in networks).encode()).hexdigest()
