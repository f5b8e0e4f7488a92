"""torch layers as affine maps and ReLUs: the counterparts of the rewrites of ONNX operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mipverify.network import torch_choice as choice
from mipverify.network.builder import Builder, RewriteError, Tensor, positions
from mipverify.network.rewrites.activation import leaky
from mipverify.network.rewrites.convolution import conv_transposed, convolved, normalized, spatial
from mipverify.network.rewrites.pooling import Windows, averaged, maximized
from mipverify.network.rewrites.shape import padded
from mipverify.network.torch_resize import interpolate


def call_module(
    builder: Builder, module: nn.Module, x: Tensor, statistics: tuple[torch.Tensor, torch.Tensor] | None = None
) -> Any:
    """The value of a leaf `module` at x. statistics: mean and variance for a batch normalization, unless its own."""
    if statistics is not None and isinstance(module, nn.modules.batchnorm._BatchNorm):
        return batch_norm(builder, x, *statistics, module.weight, module.bias, module.eps)
    for kind, layer in _LAYERS.items():
        if isinstance(module, kind):
            return layer(builder, module, x)
    if isinstance(module, MOVING_LAYERS):
        return moved(builder, module, x)
    hint = ": it jumps" if isinstance(module, nn.Hardshrink) else ""
    kind = type(module)
    name = kind.__name__ if kind.__module__.startswith("torch.nn.modules.") else f"{kind.__module__}.{kind.__name__}"
    raise RewriteError(f"layers of type {name} are not supported{hint}")


def moved(builder: Builder, function: Callable[..., Any], x: Tensor, *arguments: Any, **options: Any) -> Any:
    """A function that only moves data, evaluated on the positions of the entries."""
    result = function(torch.from_numpy(positions(x.shape)), *arguments, **options)
    if isinstance(result, (tuple, list)):
        return tuple(builder.move(x, part.numpy()) for part in result)
    return builder.move(x, result.numpy())


def pair(value: Any, count: int) -> tuple[int, int]:
    """A number or one for each of `count` axes, as (vertical, horizontal)."""
    values = list(value) if isinstance(value, (tuple, list)) else [value] * count
    return (values[0], values[1]) if count == 2 else (1, values[0])


def pads_of(padding: Any, count: int, kernel: tuple[int, int], dilations: tuple[int, int]) -> tuple[int, int, int, int]:
    """torch's padding as (top, left, bottom, right)."""
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
        return (totals[0] // 2, totals[1] // 2, totals[0] - totals[0] // 2, totals[1] - totals[1] // 2)
    vertical, horizontal = pair(padding, count)
    vertical = 0 if count == 1 else vertical
    return (vertical, horizontal, vertical, horizontal)


def convolution(
    builder: Builder,
    x: Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """torch.nn.functional.conv1d and conv2d."""
    count = weight.ndim - 2
    kernel = (1, weight.shape[2]) if count == 1 else (weight.shape[2], weight.shape[3])
    dilations = pair(dilation, count)
    pads = pads_of(padding, count, kernel, dilations)
    return convolved(builder, x, weight, bias, pair(stride, count), pads, dilations, groups)


def transposed_convolution(
    builder: Builder,
    x: Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """torch.nn.functional.conv_transpose1d and conv_transpose2d."""
    count = weight.ndim - 2
    dilations, extra = pair(dilation, count), pair(output_padding, count)
    extra = (0, extra[1]) if count == 1 else extra
    pads = pads_of(padding, count, (1, 1), dilations)
    return conv_transposed(builder, x, weight, bias, pair(stride, count), pads, dilations, groups, extra)


def _conv(builder: Builder, module: Any, x: Tensor) -> Tensor:
    padding = module.padding
    if module.padding_mode != "zeros":
        mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[module.padding_mode]
        count = module.weight.ndim - 2
        kernel, dilations = pair(module.kernel_size, count), pair(module.dilation, count)
        top, left, bottom, right = pads_of(padding, count, kernel, dilations)
        widths = [(0, 0), (0, 0), (top, bottom), (left, right)]
        x, padding = padded(builder, x, [*widths[:2], *widths[4 - count :]], mode), 0
    return convolution(builder, x, module.weight, module.bias, module.stride, padding, module.dilation, module.groups)


def _conv_transpose(builder: Builder, module: Any, x: Tensor) -> Tensor:
    return transposed_convolution(
        builder,
        x,
        module.weight,
        module.bias,
        module.stride,
        module.padding,
        module.output_padding,
        module.groups,
        module.dilation,
    )


def _batch_norm(builder: Builder, module: Any, x: Tensor) -> Tensor:
    if module.running_mean is None:
        raise RewriteError("without running statistics it is not a fixed function")
    return batch_norm(builder, x, module.running_mean, module.running_var, module.weight, module.bias, module.eps)


def batch_norm(
    builder: Builder,
    x: Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
) -> Tensor:
    """Batch normalization in evaluation mode."""
    weight = torch.ones_like(mean) if weight is None else weight
    factor = weight.double() / torch.sqrt(variance.double() + eps)
    return normalized(builder, x, factor, torch.zeros_like(mean) if bias is None else bias, mean)


def windows_of(
    x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Windows:
    """The windows of a pooling layer."""
    in_hw, count = spatial(x), len(x.shape) - 2
    kernel, dilations = pair(kernel_size, count), pair(dilation, count)
    strides = kernel if stride is None or stride == [] else pair(stride, count)
    return Windows(in_hw, kernel, strides, pads_of(padding, count, kernel, dilations), dilations, ceil_mode)


def max_pool(
    builder: Builder,
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """torch.nn.functional.max_pool1d and max_pool2d."""
    if return_indices:
        raise RewriteError("the indices of the maxima are not piecewise linear")
    return maximized(builder, x, windows_of(x, kernel_size, stride, padding, dilation, ceil_mode))


def average_pool(
    builder: Builder,
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """torch.nn.functional.avg_pool1d and avg_pool2d."""
    windows = windows_of(x, kernel_size, stride, padding, 1, ceil_mode)
    return averaged(builder, x, windows, count_include_pad, divisor_override)


def adaptive_average_pool(builder: Builder, x: Tensor, output_size: Any) -> Tensor:
    """torch.nn.functional.adaptive_avg_pool1d and 2d where the output size divides the input's."""
    in_hw, count = spatial(x), len(x.shape) - 2
    wanted = list(output_size) if isinstance(output_size, (tuple, list)) else [output_size] * count
    wanted = [in_hw[axis - count] if size is None else size for axis, size in enumerate(wanted)]
    sizes = in_hw[2 - count :]
    if any(size % out for size, out in zip(sizes, wanted, strict=True)):
        raise RewriteError(f"adaptive pooling of {list(sizes)} to {wanted}: only sizes that divide are supported")
    return average_pool(builder, x, [size // out for size, out in zip(sizes, wanted, strict=True)])


def _prelu(builder: Builder, module: nn.PReLU, x: Tensor) -> Tensor:
    return prelu(builder, x, module.weight)


def prelu(builder: Builder, x: Tensor, weight: torch.Tensor) -> Tensor:
    """One slope, or one for each entry along axis 1."""
    shape = (1, -1) + (1,) * (len(x.shape) - 2) if len(x.shape) > 1 else (-1,)
    return leaky(builder, x, weight.reshape(shape) if weight.numel() > 1 else weight)


def pad(builder: Builder, x: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    """torch.nn.functional.pad."""
    widths = [(0, 0)] * len(x.shape)
    for i in range(len(pad) // 2):
        widths[len(x.shape) - 1 - i] = (pad[2 * i], pad[2 * i + 1])
    mode = {"replicate": "edge", "circular": "wrap"}.get(mode, mode)
    return padded(builder, x, widths, mode, float(builder.number(value or 0.0)))


UNCHANGED_LAYERS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.Identity)
MOVING_LAYERS = (nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)
_LAYERS: dict[type | tuple[type, ...], Callable[[Builder, Any, Tensor], Any]] = {
    nn.Linear: lambda builder, m, x: builder.dense(x, m.weight, m.bias),
    (nn.Conv1d, nn.Conv2d): _conv,
    (nn.ConvTranspose1d, nn.ConvTranspose2d): _conv_transpose,
    (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm): _batch_norm,
    nn.ReLU: lambda builder, m, x: builder.relu(x),
    (nn.ReLU6, nn.Hardtanh): lambda builder, m, x: choice.clamp(builder, x, m.min_val, m.max_val),
    nn.Hardsigmoid: lambda builder, m, x: choice.hardsigmoid(builder, x),
    nn.Softshrink: lambda builder, m, x: choice.softshrink(builder, x, m.lambd),
    nn.Threshold: lambda builder, m, x: choice.threshold(builder, x, m.threshold, m.value),
    nn.LeakyReLU: lambda builder, m, x: leaky(builder, x, builder.number(m.negative_slope)),
    nn.RReLU: lambda builder, m, x: leaky(builder, x, builder.number((m.lower + m.upper) / 2)),
    nn.PReLU: _prelu,
    (nn.MaxPool1d, nn.MaxPool2d): lambda builder, m, x: max_pool(
        builder, x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    (nn.AvgPool1d, nn.AvgPool2d): lambda builder, m, x: average_pool(
        builder,
        x,
        m.kernel_size,
        m.stride,
        m.padding,
        m.ceil_mode,
        m.count_include_pad,
        getattr(m, "divisor_override", None),
    ),
    (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d): lambda builder, m, x: adaptive_average_pool(
        builder, x, m.output_size
    ),
    nn.Upsample: lambda builder, m, x: interpolate(
        builder, x, m.size, m.scale_factor, m.mode, m.align_corners, m.recompute_scale_factor
    ),
    (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d): lambda builder, m, x: pad(
        builder, x, m.padding, "constant", m.value
    ),
    (nn.ReflectionPad1d, nn.ReflectionPad2d): lambda builder, m, x: pad(builder, x, m.padding, "reflect"),
    (nn.ReplicationPad1d, nn.ReplicationPad2d): lambda builder, m, x: pad(builder, x, m.padding, "replicate"),
    (nn.CircularPad1d, nn.CircularPad2d): lambda builder, m, x: pad(builder, x, m.padding, "circular"),
    UNCHANGED_LAYERS: lambda builder, m, x: x,
}
