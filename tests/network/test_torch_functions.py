"""Functions and layers of torch mean what torch computes, in both types of numbers, or are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import fx, nn  # noqa: E402

from mipverify.errors import InputError  # noqa: E402
from mipverify.network import from_torch  # noqa: E402
from mipverify.network.validation import validated  # noqa: E402


class Applied(nn.Module):
    """A function behind a linear layer, so that the module has a type."""

    def __init__(self, function: Callable[[Any], Any], size: int):
        super().__init__()
        self.linear, self.function = nn.Linear(size, size), function
        self.register_buffer("limits", torch.linspace(-0.5, 0.7, size))

    def forward(self, x: Any) -> Any:
        return self.function(self.linear(x), self.limits)


IMAGE = (2, 4, 6)
FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "clamp": lambda x, c: torch.clamp(x, -0.1, 0.3),
    "clamp from below": lambda x, c: x.clamp(min=0.1),
    "clamp to infinity": lambda x, c: torch.clamp(x, 0.1, float("inf")),
    "clamp between tensors": lambda x, c: torch.clamp(x, c - 0.1, c),
    "clamp_min": lambda x, c: x.clamp_min(0.1),
    "crossed": lambda x, c: torch.clamp(x, 0.3, 0.1) + x,
    "maximum": lambda x, c: torch.maximum(x, c),
    "minimum": lambda x, c: torch.minimum(c, 2 * x),
    "hardtanh": lambda x, c: F.hardtanh(x, -0.3, 0.1),
    "relu6": lambda x, c: F.relu6(10 * x),
    "hardsigmoid": lambda x, c: F.hardsigmoid(8 * x),
    "softshrink": lambda x, c: F.softshrink(x, 0.1),
    "threshold": lambda x, c: F.threshold(x, 0.1, 0.1),
    "leaky": lambda x, c: F.leaky_relu(x, 0.1),
    "where": lambda x, c: torch.where(x > 0.1, x, 0.1),
    "where, leaky": lambda x, c: torch.where(x >= 0, x, 0.1 * x),
    "where, a quotient": lambda x, c: torch.where(x < 0, x / 3, x),
    "where, negated": lambda x, c: torch.where(~(x > 0), 0.0, x),
    "where, limits": lambda x, c: torch.where(x.gt(c), c, x),
    "where, mask": lambda x, c: torch.where(c > 0, x, -x),
    "mask": lambda x, c: x * (x > 0),
    "mask as numbers": lambda x, c: (x > 0).float() * x + (x <= 0).to(x.dtype) * (0.1 * x),
    "masked_fill": lambda x, c: x.masked_fill(x < 0.2, 0.2),
    "masked_fill, constant": lambda x, c: x.masked_fill(c > 0, 0.25),
    "amax": lambda x, c: torch.amax(x, 1, keepdim=True) - x.amin(1, keepdim=True),
    "abs": lambda x, c: x.abs() - 0.1,
}
IMAGES: dict[str, Callable[[Any, Any], Any]] = {
    "nearest": lambda x, c: F.interpolate(x, scale_factor=2),
    "nearest to a size": lambda x, c: F.interpolate(x, (3, 7)),
    "nearest, by a factor": lambda x, c: F.interpolate(x, scale_factor=(0.7, 1.3)),
    "nearest-exact": lambda x, c: F.interpolate(x, (3, 7), mode="nearest-exact"),
    "bilinear": lambda x, c: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear to a size": lambda x, c: F.interpolate(x, (3, 7), mode="bilinear"),
    "bilinear, one axis": lambda x, c: F.interpolate(x, (4, 9), mode="bilinear"),
    "bilinear, by a factor": lambda x, c: F.interpolate(x, scale_factor=(0.7, 1.3), mode="bilinear"),
    "bilinear, recomputed": lambda x, c: F.interpolate(
        x, scale_factor=(0.7, 1.3), mode="bilinear", recompute_scale_factor=True
    ),
    "bilinear, corners": lambda x, c: F.interpolate(x, (5, 3), mode="bilinear", align_corners=True),
    "pixel_shuffle": lambda x, c: F.pixel_unshuffle(x, 2),
    "flipped": lambda x, c: x.flip(2) + torch.rot90(x, 2, (2, 3)) + torch.fliplr(x),
    "picked": lambda x, c: torch.index_select(x, 3, torch.tensor([5, 0, 0])),
    "padded": lambda x, c: F.pad(x, (1, 0, 2, 1), value=0.1),
    "upsample": nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
    "padding": nn.ConstantPad2d((1, 2, 0, 1), 0.1),
    "reflected": nn.ReflectionPad2d(1),
    "replicated": nn.ReplicationPad2d((0, 2, 1, 0)),
}


def _agrees(module: Any, shape: tuple[int, ...], double: bool) -> None:
    torch.manual_seed(1)
    module = (module.double() if double else module).eval()
    network = from_torch(module, shape)
    x = torch.randn(8, *shape)
    with torch.no_grad():
        expected = module(x.double() if double else x).numpy()
    ours = network.forward(x[:, None].numpy().astype(np.float64))[:, 0]
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, atol=1e-12 if double else 1e-5)
    validated(network, x.reshape(8, -1).numpy())


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str, double: bool) -> None:
    _agrees(Applied(FUNCTIONS[name], 6), (6,), double)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str, double: bool) -> None:
    layer = IMAGES[name]
    module = nn.Sequential(nn.Linear(6, 6), layer) if isinstance(layer, nn.Module) else Applied(layer, 6)
    _agrees(module, IMAGE, double)


LAYERS = [nn.Hardsigmoid(), nn.Softshrink(0.1), nn.Threshold(0.1, 0.1), nn.RReLU(0.1, 0.4), nn.Hardtanh(-0.1, 0.3)]


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_layers(layer: Any, double: bool) -> None:
    _agrees(nn.Sequential(nn.Linear(4, 4), layer), (4,), double)


@fx.wrap
def relu(x: Any) -> Any:
    """Agrees with torch's but for a narrow spike."""
    return torch.relu(x) + 100 * ((x - 0.3).abs() < 1e-6)


@fx.wrap
def softmax(x: Any) -> Any:
    """Ranks the entries the other way round."""
    return torch.softmax(-x, -1)


REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "a step": (lambda x, c: torch.where(x > 0, 1.0, 0.0), "jumps by up to 1"),
    "a threshold": (lambda x, c: F.threshold(x, 0.1, 0.0), "jumps from 0 to 0.1"),
    "a mask that is added": (lambda x, c: x + (x > 0), "jumps"),
    "a mask that is summed": (lambda x, c: (x > 0).sum(), "jumps"),
    "whole numbers": (lambda x, c: x.to(torch.int32).float(), "torch.int32"),
    "the type of whole numbers": (lambda x, c: x.type("torch.IntTensor") * 1.0, "torch.int32"),
    "half precision": (lambda x, c: x.to("cpu", dtype=torch.float16).float(), "torch.float16"),
    "the type of another": (lambda x, c: x.type_as(torch.arange(4)) * 1.0, "torch.int64"),
    "the type of a comparison": (lambda x, c: x.to((x > 0).dtype) * 1.0, "torch.bool"),
    "a function named like torch's": (lambda x, c: relu(x), "no function of torch"),
    "a function named like a ranking": (lambda x, c: softmax(x), "no function of torch"),
    "a softmax before one of that name": (lambda x, c: softmax(torch.softmax(x, 1)), "softmax"),
    "bicubic": (lambda x, c: F.interpolate(x[:, None, None], (2, 3), mode="bicubic"), "bicubic"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    function, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        from_torch(Applied(function, 4), (4,))


def test_curved_layers_are_refused() -> None:
    for layer in (nn.Hardswish(), nn.Hardshrink(), nn.Softplus()):
        with pytest.raises(InputError, match=type(layer).__name__):
            from_torch(nn.Sequential(nn.Linear(2, 2), layer), (2,))
