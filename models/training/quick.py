"""A faster gradient of strided first convolutions, which dominates the cost of attacks on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

FEW_CHANNELS = 4  # with more, the library's own transposed convolution is as fast


class _StridedConvolution(torch.autograd.Function):
    """A convolution whose gradient in the input is a convolution with stride 1, and which has no other gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.geometry = (stride, padding, x.shape[2], x.shape[3])
        return functional.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        return input_gradient(gradients[0], weight, *ctx.geometry), None, None, None, None


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
    whole = functional.pixel_shuffle(functional.conv2d(g, parts, padding=taps - 1), stride)
    missing = [padding + side - size for side, size in zip((height, width), whole.shape[2:], strict=True)]
    if max(missing) > 0:  # the last rows of the image lie outside every window
        whole = functional.pad(whole, (0, max(missing[1], 0), 0, max(missing[0], 0)))
    return whole[:, :, padding : padding + height, padding : padding + width]


class _Quick(nn.Module):
    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.of = [convolution]  # in a list: the parameters stay those of the original

    def forward(self, x: Tensor) -> Tensor:
        conv = self.of[0]
        bias = None if conv.bias is None else conv.bias.detach()
        return _StridedConvolution.apply(x, conv.weight.detach(), bias, conv.stride[0], conv.padding[0])


def attack_twin(module: nn.Module) -> nn.Module:
    """A module with the same outputs and the same gradient in the input, cheaper where that is possible.

    It reads the parameters of `module` whenever it is called, and gives them no gradient through the layers that it
    replaces: the first convolution of an `nn.Sequential`, if it is strided and has few input channels (a gradient
    step costs half as much then on a CPU). Any other module is returned as it is.
    """
    if type(module) is not nn.Sequential or not len(module) or not _replaceable(module[0]):
        return module
    first, *rest = module
    assert isinstance(first, nn.Conv2d)
    twin = nn.Sequential(_Quick(first), *rest)
    twin.training = module.training
    return twin


def _replaceable(layer: nn.Module) -> bool:
    if type(layer) is not nn.Conv2d or layer.in_channels > FEW_CHANNELS or not isinstance(layer.padding, tuple):
        return False
    plain = layer.groups == 1 and set(layer.dilation) == {1} and layer.padding_mode == "zeros"
    square = all(len(set(pair)) == 1 for pair in (layer.stride, layer.padding, layer.kernel_size))
    return plain and square and layer.stride[0] > 1 and layer.weight.device.type == "cpu"
