"""How each ONNX operator becomes affine maps and ReLUs: one small file per family, one registry."""

from __future__ import annotations

from mipverify.network.rewrites import (
    activation,
    comparison,
    contraction,
    convolution,
    fold,
    indexing,
    linear,
    maximum,
    pooling,
    reduce,
    resize,
    shape,
)
from mipverify.network.rewrites.registry import REWRITES, OnnxNode

__all__ = [
    "REWRITES",
    "OnnxNode",
    "activation",
    "comparison",
    "contraction",
    "convolution",
    "fold",
    "indexing",
    "linear",
    "maximum",
    "pooling",
    "reduce",
    "resize",
    "shape",
]
