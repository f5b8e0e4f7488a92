"""The network architectures of the two papers, and wider ones, by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from mipverify.errors import InputError, one_line
from mipverify.network.formats.state_dict import made_by
from mipverify.network.torch_copy import untouched
from mipverify.network.torch_trace import evaluating

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Architecture:
    """`make(input_shape, classes)` returns the module; `images` says that it takes (channels, height, width)."""

    make: Callable[[Shape, int], nn.Module]
    images: bool
    text: str


class Block(nn.Module):
    """Two convolutions and a shortcut by another convolution, as in the residual networks of Wong et al. 2018."""

    def __init__(self, inputs: int, outputs: int, *, downsample: bool):
        super().__init__()
        stride = 2 if downsample else 1
        self.first = nn.Conv2d(inputs, outputs, 4 if downsample else 3, stride, padding=1)
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, stride, stride)
        self.last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H/stride, W/stride)."""
        return self.last(self.second(self.relu(self.first(x))) + self.shortcut(x))


class Thresholds(nn.Module):
    """relu(1 - relu((x - low) / (high - low))) of every pixel: 1 below `low`, 0 above `high`, a line between.

    Both are learned, for each channel. Networks that withstand large perturbations of MNIST learn thresholds in their
    first layer [Madry et al. 2018, arXiv 1706.06083, appendix C]. Interval bounds of this one are exact, and a pixel
    that stays on one side is a constant, whereas a filter adds up the widths of all pixels that it sees. `low` and
    `high` begin where black and white pixels stay constant at a radius of 0.3.
    """

    def __init__(self, channels: int, low: float = 0.3, high: float = 0.7):
        super().__init__()
        scale = 1 / (high - low)
        self.weight = nn.Parameter(torch.tensor([scale, -1.0]).reshape(2, 1, 1, 1).repeat(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.tensor([-low * scale, 1.0]).reshape(2, 1, 1, 1).repeat(1, channels, 1, 1))
        self.first, self.last = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, channels, H, W)."""
        x = self.first(x * self.weight[0] + self.bias[0])
        return self.last(x * self.weight[1] + self.bias[1])


def _dense(shape: Shape, *sizes: int) -> nn.Sequential:
    widths = (math.prod(shape), *sizes)
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        layers += [nn.Linear(inputs, outputs)] + ([nn.ReLU()] if i < len(sizes) - 1 else [])
    return nn.Sequential(*layers)


def _convolutional(shape: Shape, convolutions: list[tuple[int, int, int, int]], *sizes: int) -> nn.Sequential:
    """`convolutions`: filters, kernel, stride, padding of each."""
    layers: list[nn.Module] = []
    channels, height, width = shape
    for filters, kernel, stride, padding in convolutions:
        layers += [nn.Conv2d(channels, filters, kernel, stride, padding), nn.ReLU()]
        channels = filters
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
        if min(height, width) < 1:
            raise InputError(f"images of {shape[1]}x{shape[2]} are too small for these convolutions")
    return nn.Sequential(*layers, *_dense((channels, height, width), *sizes))


def _normalized(
    shape: Shape, convolutions: list[tuple[int, int, int, int]], hidden: int, classes: int
) -> nn.Sequential:
    """One hidden dense layer, and a batch normalization after every layer but the last, in place of its bias."""
    layers: list[nn.Module] = []
    for layer in _convolutional(shape, convolutions, hidden):
        layers.append(layer)
        if isinstance(layer, nn.Conv2d):
            layers.append(nn.BatchNorm2d(layer.out_channels))
        elif isinstance(layer, nn.Linear):
            layers.append(nn.BatchNorm1d(layer.out_features))
        else:
            continue
        layer.register_parameter("bias", None)
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(hidden, classes))


def _residual(shape: Shape, classes: int) -> nn.Sequential:
    channels, height, width = shape
    if height % 4 or width % 4:
        raise InputError(f"res needs images whose sides are multiples of 4, not {height}x{width}")
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        Block(16, 16, downsample=False),
        Block(16, 16, downsample=False),
        Block(16, 32, downsample=True),
        Block(32, 64, downsample=True),
        *_dense((64, height // 4, width // 4), 1000, classes),
    )


_LARGE = [(32, 3, 1, 1), (32, 4, 2, 1), (64, 3, 1, 1), (64, 4, 2, 1)]

# Tjeng et al. 2019, section 5, whose convolutional networks are those of Wong and Kolter 2018 and Wong et al. 2018
# (the numbers of ReLUs, 4,804 and 48,064 on MNIST and 107,496 on CIFAR-10, agree), and Xiao et al. 2019, appendix A.
ARCHITECTURES: dict[str, Architecture] = {
    "mlp_a": Architecture(lambda s, k: _dense(s, 500, k), False, "one hidden layer of 500 (Tjeng et al.)"),
    "mlp_b": Architecture(lambda s, k: _dense(s, 200, 200, k), False, "two hidden layers of 200 (Tjeng et al.)"),
    "cnn_a": Architecture(
        lambda s, k: _convolutional(s, [(16, 4, 2, 1), (32, 4, 2, 1)], 100, k),
        True,
        "convolutions of 16 and 32 filters 4x4 with stride 2, dense 100 (Tjeng et al.)",
    ),
    "cnn_b": Architecture(
        lambda s, k: _convolutional(s, _LARGE, 512, 512, k),
        True,
        "convolutions of 32, 32, 64 and 64 filters, every second one with stride 2, dense 512 twice (Tjeng et al.)",
    ),
    "res": Architecture(_residual, True, "nine convolutions in four residual blocks, dense 1000 (Tjeng et al.)"),
    "rs_cnn": Architecture(
        lambda s, k: _convolutional(s, [(16, 5, 2, 2), (32, 5, 2, 2)], 100, k),
        True,
        "convolutions of 16 and 32 filters 5x5 with stride 2, dense 100 (Xiao et al., MNIST and CIFAR-10)",
    ),
    "rs_cnn_wide": Architecture(
        lambda s, k: _convolutional(s, [(32, 5, 2, 2), (64, 5, 2, 2)], 200, k),
        True,
        "rs_cnn, all layers twice as wide",
    ),
    "cnn_norm": Architecture(
        lambda s, k: _normalized(s, [(48, 4, 2, 1), (96, 4, 2, 1)], 384, k),
        True,
        "convolutions of 48 and 96 filters 4x4 with stride 2, dense 384, a batch normalization after each",
    ),
    "cnn_threshold": Architecture(
        lambda s, k: nn.Sequential(Thresholds(s[0]), *_normalized(s, [(48, 4, 2, 1), (96, 4, 2, 1)], 384, k)),
        True,
        "cnn_norm after a threshold of every pixel, which is learned",
    ),
}


def build(name: str, input_shape: Shape = (1, 28, 28), classes: int = 10, seed: int | None = None) -> nn.Module:
    """A fresh network of this architecture for inputs (N, *input_shape), with logits (N, classes).

    name: one of `ARCHITECTURES`, or FILE.py:FUNCTION, a function of the user's that returns a module: without
    arguments, or given the input shape and the number of classes. The file is executed.

    `seed` makes the initial weights reproducible and leaves torch's random numbers as they were; without it the
    weights come from them. Raises `InputError` if the name or the shape does not fit.
    """
    if ".py:" in name:
        return _own(name, tuple(input_shape), classes, seed)
    if name not in ARCHITECTURES:
        raise InputError(f"architecture {name!r}: not one of {', '.join(ARCHITECTURES)}, nor FILE.py:FUNCTION")
    architecture = ARCHITECTURES[name]
    if classes < 2 or not input_shape or min(input_shape) < 1:
        raise InputError(f"{name}: no network for inputs of shape {tuple(input_shape)} and {classes} classes")
    if architecture.images and len(input_shape) != 3:
        raise InputError(f"{name} takes images (channels, height, width), not inputs of shape {tuple(input_shape)}")
    if seed is None:
        return architecture.make(tuple(input_shape), classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return architecture.make(tuple(input_shape), classes)


def resolved(name: str) -> str:
    """The name of an architecture wherever it is read again: with the whole path of a file."""
    file, mark, function = name.rpartition(".py:")
    return f"{Path(file + '.py').resolve()}:{function}" if mark else name


def _own(name: str, shape: Shape, classes: int, seed: int | None) -> nn.Module:
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        module = made_by(name, shape, classes)
        with untouched(), evaluating(module):
            try:
                found = module(torch.zeros(2, *shape))
            except Exception as error:  # noqa: BLE001  # the user's own code
                text = one_line(error)
                raise InputError(f"--architecture {name}: does not take images of shape {shape}: {text}") from None
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 2 or found.shape[1] < classes:
        given = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"--architecture {name}: gives {given} for 2 images, not {classes} logits each")
    return module
