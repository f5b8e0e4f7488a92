"""Convolutions, their transposes, and batch normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mipverify.network.builder import Builder, RewriteError, Tensor
from mipverify.network.convolution import Conv
from mipverify.network.operators import Array, Transposed
from mipverify.network.rewrites.registry import OnnxNode, rewrite


def spatial(x: Tensor) -> tuple[int, int]:
    """Height and width of x (1, C, H, W); a sequence (1, C, L) is an image of height 1."""
    if len(x.shape) not in (3, 4):
        raise RewriteError(f"a tensor of shape {list(x.shape)}: only one- and two-dimensional images are supported")
    if x.shape[0] != 1:
        raise RewriteError(f"a batch of {x.shape[0]} images: export the model with batch size 1 or a symbolic one")
    return (1, x.shape[2]) if len(x.shape) == 3 else (x.shape[2], x.shape[3])


def paired(values: Sequence[int] | None, default: int, count: int) -> tuple[int, int]:
    """An attribute with one number for each of `count` axes as (vertical, horizontal)."""
    values = [default] * count if values is None else [int(v) for v in values]
    if len(values) != count:
        raise RewriteError(f"an attribute has {len(values)} numbers for {count} axes")
    return (default, values[0]) if count == 1 else (values[0], values[1])


def resolved_pads(
    node: OnnxNode, in_hw: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int]
) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of a convolution or pooling node, auto_pad resolved as ONNX Runtime does.

    It ignores dilations here, which the text of ONNX does not; it refuses them in convolutions.
    """
    mode = node.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return (0, 0, 0, 0)
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        begin, end = [], []
        for size, k, stride in zip(in_hw, kernel, strides, strict=True):
            total = (math.ceil(size / stride) - 1) * stride + k - size
            if total < -1:
                raise RewriteError(f"auto_pad {mode} with a stride that leaves out more than one entry: set the pads")
            total = max(0, total)
            begin.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
            end.append(total - begin[-1])
        return (begin[0], begin[1], end[0], end[1])
    if mode != "NOTSET":
        raise RewriteError(f"auto_pad {mode!r} is not known")
    return four(node.get("pads"))


def four(pads: Sequence[int] | None) -> tuple[int, int, int, int]:
    """ONNX pads, all begins before all ends, as (top, left, bottom, right)."""
    if pads is None:
        return (0, 0, 0, 0)
    if min(pads) < 0:
        raise RewriteError("negative pads")
    return (0, pads[0], 0, pads[1]) if len(pads) == 2 else (pads[0], pads[1], pads[2], pads[3])


@rewrite("Conv")
def conv(builder: Builder, node: OnnxNode) -> Tensor:
    """One- and two-dimensional convolution with constant weights."""
    x, weight = node.tensor(0), node.constant(1, "the weights")
    in_hw, count = spatial(x), len(x.shape) - 2
    strides, dilations = paired(node.get("strides"), 1, count), paired(node.get("dilations"), 1, count)
    kernel = (1, weight.shape[2]) if count == 1 else weight.shape[2:]
    if node.get("auto_pad", "NOTSET").startswith("SAME") and dilations != (1, 1):
        raise RewriteError("auto_pad SAME with dilations: ONNX Runtime does not compute it; set the pads")
    pads = resolved_pads(node, in_hw, kernel, strides)
    bias = node.optional_constant(2, "the bias")
    return convolved(builder, x, weight, bias, strides, pads, dilations, int(node.get("group", 1)))


def convolved(
    builder: Builder,
    x: Tensor,
    weight: Array,
    bias: Array | None,
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int],
    groups: int,
) -> Tensor:
    """The convolution of x (1, C, [H,] W) with weight (O, C / groups, [kh,] kw) and bias (O,)."""
    in_hw, flat = spatial(x), len(x.shape) == 3
    _require_axes(weight, x)
    weight = weight[:, :, None] if flat else weight
    if x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise RewriteError(f"weights {list(weight.shape)} in {groups} groups do not fit {x.shape[1]} channels")
    try:
        operator = Conv(weight, in_hw, strides, pads, dilations, groups)
    except ValueError as error:
        raise RewriteError(str(error)) from None
    y = builder.affine([(x, operator)], operator.out_shape, None if bias is None else bias.reshape(1, -1, 1, 1))
    return y.viewed((1, y.shape[1], y.shape[3])) if flat else y


def _require_axes(weight: Array, x: Tensor) -> None:
    if len(weight.shape) != len(x.shape):
        raise RewriteError(f"weights of shape {list(weight.shape)} do not fit a tensor of shape {list(x.shape)}")


@rewrite("ConvTranspose")
def conv_transpose(builder: Builder, node: OnnxNode) -> Tensor:
    """The transpose of a convolution."""
    x, weight = node.tensor(0), node.constant(1, "the weights")
    in_hw, count = spatial(x), len(x.shape) - 2
    strides, dilations = paired(node.get("strides"), 1, count), paired(node.get("dilations"), 1, count)
    extra = paired(node.get("output_padding"), 0, count)
    kernel = (1, weight.shape[2]) if count == 1 else weight.shape[2:]
    full = tuple(
        (n - 1) * s + d * (k - 1) + 1 + e
        for n, s, d, k, e in zip(in_hw, strides, dilations, kernel, extra, strict=True)
    )
    mode, wanted = node.get("auto_pad", "NOTSET"), node.get("output_shape")
    if wanted or mode in ("SAME_UPPER", "SAME_LOWER"):
        sizes = [n * s for n, s in zip(in_hw, strides, strict=True)]
        if wanted:
            if len(wanted) not in (count, count + 2):
                raise RewriteError(f"output_shape has {len(wanted)} numbers for {count} axes")
            sizes = [1, wanted[-1]] if count == 1 else list(wanted[-2:])
        elif any(f < size for f, size in zip(full, sizes, strict=True)):
            raise RewriteError("the output is larger than the windows reach: set output_padding instead")
        totals = [max(0, f - size) for f, size in zip(full, sizes, strict=True)]
        # What is asked for beyond the windows is padded behind, like output_padding.
        more = [e + max(0, size - f) for e, size, f in zip(extra, sizes, full, strict=True)]
        extra = (more[0], more[1])
        # The larger half of an odd total goes to the start for every mode but SAME_UPPER.
        before = [t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in totals]
        pads = (before[0], before[1], totals[0] - before[0], totals[1] - before[1])
    else:
        pads = (0, 0, 0, 0) if mode == "VALID" else four(node.get("pads"))
    bias = node.optional_constant(2, "the bias")
    return conv_transposed(builder, x, weight, bias, strides, pads, dilations, int(node.get("group", 1)), extra)


def conv_transposed(
    builder: Builder,
    x: Tensor,
    weight: Array,
    bias: Array | None,
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int],
    groups: int,
    extra: tuple[int, int] = (0, 0),
) -> Tensor:
    """The transposed convolution of x (1, C, [H,] W) with weight (C, O / groups, [kh,] kw)."""
    in_hw, flat = spatial(x), len(x.shape) == 3
    _require_axes(weight, x)
    weight = weight[:, :, None] if flat else weight
    if x.shape[1] != weight.shape[0]:
        raise RewriteError(f"weights {list(weight.shape)} do not fit {x.shape[1]} channels")
    out_hw = tuple(
        (n - 1) * s + d * (k - 1) + 1 + e - before - after
        for n, s, d, k, e, before, after in zip(
            in_hw, strides, dilations, weight.shape[2:], extra, pads[:2], pads[2:], strict=True
        )
    )
    if min(out_hw) < 1:
        raise RewriteError(f"the output would be empty: {list(out_hw)}")
    inner = Conv(weight, (out_hw[0], out_hw[1]), strides, pads, dilations, groups)
    if inner.out_shape[2:] != in_hw:
        raise RewriteError("output_padding must be smaller than the stride")
    operator = Transposed(inner)
    y = builder.affine([(x, operator)], operator.out_shape, None if bias is None else bias.reshape(1, -1, 1, 1))
    return y.viewed((1, y.shape[1], y.shape[3])) if flat else y


@rewrite("BatchNormalization")
def batch_normalization(builder: Builder, node: OnnxNode) -> Tensor:
    """(x - mean) gamma / sqrt(variance + epsilon) + beta, for each channel."""
    if node.get("training_mode", 0) or (node.opset < 14 and len([name for name in node.proto.output if name]) > 1):
        raise RewriteError("it is in training mode: export the model in evaluation mode")
    if not node.get("spatial", 1):
        raise RewriteError("spatial=0 is not supported")
    gamma, beta, mean, variance = (
        node.constant(i, name) for i, name in ((1, "scale"), (2, "B"), (3, "mean"), (4, "var"))
    )
    epsilon = float(np.float32(node.get("epsilon", 1e-5)))
    if (variance.astype(np.float64) + epsilon <= 0).any():
        raise RewriteError("variance plus epsilon is not positive")
    factor = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    return normalized(builder, node.tensor(0), factor, beta, mean)


def normalized(builder: Builder, x: Tensor, factor: Array, beta: Array, mean: Array) -> Tensor:
    """(x - mean) factor + beta along axis 1.

    The factor is rounded three times in float64 (sum, root, quotient): the operator's `terms` say so, and the error
    analysis covers it. The mean is subtracted first, where it is exact, so that no rounded product enters the bias.
    """
    shape = (1, -1) + (1,) * (len(x.shape) - 2)
    centered = builder.shift(x, -mean.reshape(shape))
    scaled = builder.scale(centered, factor.reshape(shape), roundings=3)
    return builder.shift(scaled, beta.reshape(shape))
