"""Faster gradients of strided convolutions, which dominate the cost of attacks and bounds on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class _StridedConvolution(torch.autograd.Function):
    """A strided convolution whose gradient in the input is a convolution with stride 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = (stride, padding)
        return functional.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g,), (x, weight), (stride, padding) = gradients, ctx.saved_tensors, ctx.geometry
        to_x, to_weight, to_bias = ctx.needs_input_grad[:3]
        x_gradient = input_gradient(g, weight, stride, padding, x.shape[2], x.shape[3]) if to_x else None
        weight_gradient = bias_gradient = None
        if to_weight or to_bias:
            _, weight_gradient, bias_gradient = torch.ops.aten.convolution_backward(
                g, x, weight, [len(weight)], [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1,
                [False, to_weight, to_bias],
            )  # fmt: skip
        return x_gradient, weight_gradient, bias_gradient, None, None


def strided_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """`torch.nn.functional.conv2d`, whose backward pass costs less on a CPU if the stride is above 1.

    x: (B, in, H, W); weight: (out, in, k, k), one group.
    """
    return _StridedConvolution.apply(x, weight, bias, stride, padding)


def input_gradient(g: Tensor, weight: Tensor, stride: int, padding: int, height: int, width: int) -> Tensor:
    """Gradient in the input (B, in, height, width) of a strided convolution whose output has the gradient g.

    weight: (out, in, k, k).

    Pixels of the same remainder modulo the stride see the output through the same part of the kernel: one convolution
    with stride 1 serves all remainders, and a pixel shuffle puts them in their places.
    """
    filters, channels, kernel = weight.shape[:3]
    taps = -(-kernel // stride)
    parts = functional.pad(weight, (0, taps * stride - kernel) * 2)
    parts = parts.reshape(filters, channels, taps, stride, taps, stride).permute(1, 3, 5, 0, 2, 4)
    parts = parts.reshape(channels * stride**2, filters, taps, taps).flip(2, 3).contiguous()
    skipped = min(padding // stride, taps - 1)  # blocks of pixels that would be padding altogether
    if filters > 1:
        g = g.contiguous(memory_format=torch.channels_last)  # the library is faster on it
    whole = functional.pixel_shuffle(functional.conv2d(g, parts, padding=taps - 1 - skipped), stride)
    first = padding - skipped * stride
    missing = [first + side - size for side, size in zip((height, width), whole.shape[2:], strict=True)]
    if max(missing) > 0:  # the last rows of the image lie outside every window
        whole = functional.pad(whole, (0, max(missing[1], 0), 0, max(missing[0], 0)))
    return whole[:, :, first : first + height, first : first + width]


class _Quick(nn.Module):
    def __init__(self, convolution: nn.Conv2d, *, detached: bool):
        super().__init__()
        self.of = [convolution]  # in a list: the parameters stay those of the original
        self.detached = detached

    def forward(self, x: Tensor) -> Tensor:
        conv = self.of[0]
        weight, bias = conv.weight, conv.bias
        if self.detached:
            weight, bias = weight.detach(), None if bias is None else bias.detach()
        return strided_convolution(x, weight, bias, conv.stride[0], conv.padding[0])  # type: ignore[arg-type]


def quick_twin(module: nn.Module, *, detached: bool = False) -> nn.Module:
    """A module with the same outputs and gradients, cheaper where that is possible on a CPU.

    It reads the parameters of `module` whenever it is called. What it replaces is the strided convolutions of an
    `nn.Sequential`; hooks of these layers do not run. detached: the parameters of replaced layers get no gradient,
    for attacks. Any other module is returned as it is.
    """
    if type(module) is not nn.Sequential or not any(_replaceable(layer) for layer in module):
        return module
    twin = nn.Sequential(
        *(_Quick(layer, detached=detached) if _replaceable(layer) else layer for layer in module)  # type: ignore[arg-type]
    )
    twin.training = module.training
    return twin


def attack_twin(module: nn.Module) -> nn.Module:
    """The twin for attacks: gradients in the input alone."""
    return quick_twin(module, detached=True)


def _replaceable(layer: nn.Module) -> bool:
    if type(layer) is not nn.Conv2d or not isinstance(layer.padding, tuple):
        return False
    plain = layer.groups == 1 and set(layer.dilation) == {1} and layer.padding_mode == "zeros"
    square = all(len(set(pair)) == 1 for pair in (layer.stride, layer.padding, layer.kernel_size))
    return plain and square and layer.stride[0] > 1 and layer.weight.device.type == "cpu"
