"""What of ONNX can be read, for those who ask before they send something."""

from __future__ import annotations

# Evaluated once and for all: they make constants of constants, or of shapes.
_FOLDED = ("Constant", "ConstantOfShape", "Range", "Shape", "Size", "EyeLike", "NonZero")
# Where the input set leaves one answer.
_DECIDED = ("Equal",)
# By constants only, which is less than these operators are.
_IN_PART = {"Div"}
# At the end of a network, where they keep the order of scores.
_LAST = ("Sigmoid", "Softmax", "LogSoftmax", "ArgMax")


def operators() -> tuple[str, ...]:
    """Operators of ONNX that networks may have, sorted; some only as the last one, or where the input set decides."""
    from mipverify.network.rewrites import REWRITES

    return tuple(sorted({*REWRITES, *_FOLDED, *_DECIDED, *_LAST} - _IN_PART))


def opsets() -> tuple[int, int]:
    """The first and the last version of the standard operators that are read."""
    import onnx

    from mipverify.network.onnx_reader import OLDEST_OPSET

    return OLDEST_OPSET, onnx.defs.onnx_opset_version()
