"""Layers as weight files store them: images (height, width, channels), dense weights (in, out), float64.

Each layer knows three things: the shape it gives, its value by numpy from the weights as stored, and its nodes in an
ONNX model, where images are (channels, height, width). The second checks the third.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from mipverify.errors import InputError
from mipverify.network.formats.onnx_writer import OnnxWriter
from mipverify.network.formats.windows import Padding, Pair, counts, gather, margins

Shape = tuple[int, ...]  # (height, width, channels) of an image, or (features,)


class Layer(Protocol):
    """One layer of a network that is being converted."""

    @property
    def label(self) -> str:
        """What errors and tables call the layer."""

    def shape(self, given: Shape) -> Shape:
        """Shape of the output for inputs of shape `given`; raises InputError if the layer does not take them."""

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """x (N, *given) in float64 -> (N, *shape)."""

    def emit(self, writer: OnnxWriter, value: str, given: Shape) -> str:
        """Append the layer's nodes; `value` names its input, the result its output."""


def channels_first(shape: Shape) -> Shape:
    """The shape in the ONNX model of what has `shape` here."""
    return (shape[2], shape[0], shape[1]) if len(shape) == 3 else shape


@dataclass(frozen=True, eq=False)
class Dense:
    """x W + b with `weight` (in, out) and `bias` (out,)."""

    label: str
    weight: np.ndarray
    bias: np.ndarray

    def shape(self, given: Shape) -> Shape:
        if len(given) != 1:
            raise InputError(f"layer {self.label!r} takes vectors, not images {_text(given)}: put `flatten` before it")
        if given[0] != self.weight.shape[0]:
            raise InputError(
                f"layer {self.label!r} has weights {_text(self.weight.shape)}, but its input has {given[0]} entries"
            )
        return (self.weight.shape[1],)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return x @ self.weight + self.bias

    def emit(self, writer: OnnxWriter, value: str, given: Shape) -> str:
        weight = writer.weight(self.weight, f"{self.label}/weight")
        bias = writer.weight(self.bias, f"{self.label}/bias")
        return writer.node("Gemm", [value, weight, bias], self.label)


@dataclass(frozen=True, eq=False)
class Conv:
    """Convolution (as networks mean it: no flip) with `weight` (height, width, in, out) and `bias` (out,)."""

    label: str
    weight: np.ndarray
    bias: np.ndarray
    stride: Pair = (1, 1)
    padding: Padding = "same"

    @property
    def kernel(self) -> Pair:
        return self.weight.shape[0], self.weight.shape[1]

    def shape(self, given: Shape) -> Shape:
        if len(given) != 3:
            raise InputError(f"layer {self.label!r} takes images, not {_text(given)} entries")
        if given[2] != self.weight.shape[2]:
            raise InputError(
                f"layer {self.label!r} has filters {_text(self.weight.shape)} (height, width, in, out), "
                f"but its input has {given[2]} channels"
            )
        return (*_windows(self.label, self.padding, given, self.kernel, self.stride), self.weight.shape[3])

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        around = margins(self.padding, x.shape[1:3], self.kernel, self.stride)
        windows = gather(x, self.kernel, self.stride, around, 0.0)
        return np.einsum("nhwcij,ijco->nhwo", windows, self.weight, optimize=True) + self.bias

    def emit(self, writer: OnnxWriter, value: str, given: Shape) -> str:
        weight = writer.weight(np.transpose(self.weight, (3, 2, 0, 1)), f"{self.label}/weight")
        bias = writer.weight(self.bias, f"{self.label}/bias")
        pads = _onnx_pads(self.padding, given, self.kernel, self.stride)
        inputs = [value, weight, bias]
        return writer.node("Conv", inputs, self.label, kernel_shape=self.kernel, strides=self.stride, pads=pads)


@dataclass(frozen=True, eq=False)
class Relu:
    """max(0, x). With a `mask`, only where it is 0: units with a negative one are zero, with a positive one linear."""

    label: str = "relu"
    mask: np.ndarray | None = None

    def shape(self, given: Shape) -> Shape:
        if self.mask is not None and _squeezed(self.mask.shape) != _squeezed(given):
            raise InputError(f"layer {self.label!r} has a mask {_text(self.mask.shape)}, its input is {_text(given)}")
        return given

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        rectified = np.maximum(x, 0.0)
        if self.mask is None:
            return rectified
        mask = self.mask.reshape(x.shape[1:])
        return np.where(mask < 0, 0.0, np.where(mask > 0, x, rectified))

    def emit(self, writer: OnnxWriter, value: str, given: Shape) -> str:
        if self.mask is None:
            return writer.node("Relu", [value], self.label)
        mask = self.mask.reshape(given)
        mask = np.moveaxis(mask, -1, 0) if len(given) == 3 else mask
        # A unit that is not rectified reads 0, so that bounds prove it stable and it costs a verifier nothing.
        rectified = writer.constant(mask == 0, f"{self.label}/rectified")
        parts = [writer.node("Mul", [value, rectified], f"{self.label}/masked")]
        parts[0] = writer.node("Relu", parts, self.label)
        if (mask > 0).any():
            linear = writer.constant(mask > 0, f"{self.label}/linear")
            parts.append(writer.node("Mul", [value, linear], f"{self.label}/passed"))
            return writer.node("Add", parts, f"{self.label}/sum")
        return parts[0]


@dataclass(frozen=True)
class Pool:
    """Maximum or mean over windows; cells outside of the image count for neither."""

    label: str
    kind: Literal["max", "average"]
    size: Pair
    stride: Pair
    padding: Padding = "cut"

    def shape(self, given: Shape) -> Shape:
        if len(given) != 3:
            raise InputError(f"layer {self.label!r} takes images, not {_text(given)} entries")
        return (*_windows(self.label, self.padding, given, self.size, self.stride), given[2])

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        around = margins(self.padding, x.shape[1:3], self.size, self.stride)
        if self.kind == "max":
            return gather(x, self.size, self.stride, around, -np.inf).max(axis=(4, 5))
        return np.nanmean(gather(x, self.size, self.stride, around, np.nan), axis=(4, 5))

    def emit(self, writer: OnnxWriter, value: str, given: Shape) -> str:
        pads = _onnx_pads(self.padding, given, self.size, self.stride)
        operator = "MaxPool" if self.kind == "max" else "AveragePool"
        return writer.node(operator, [value], self.label, kernel_shape=self.size, strides=self.stride, pads=pads)


@dataclass(frozen=True)
class Flatten:
    """A vector of an image: `hwc` (TensorFlow, Flatten(4) of MIPVerify.jl) or `chw` (PyTorch, [1, 3, 2, 4])."""

    order: Literal["hwc", "chw"] = "hwc"
    label: str = "flatten"

    def shape(self, given: Shape) -> Shape:
        return (int(np.prod(given)),)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        if x.ndim == 4 and self.order == "chw":
            x = np.moveaxis(x, -1, 1)
        return x.reshape(len(x), -1)

    def emit(self, writer: OnnxWriter, value: str, given: Shape) -> str:
        if len(given) == 3 and self.order == "hwc" and given[2] > 1:
            value = writer.node("Transpose", [value], f"{self.label}/channels_last", perm=[0, 2, 3, 1])
        return writer.node("Flatten", [value], self.label, axis=1)


@dataclass(frozen=True, eq=False)
class Normalize:
    """(x - mean) / std, along the last axis: for each channel of an image, for each entry of a vector."""

    mean: np.ndarray
    std: np.ndarray
    label: str = "normalize"

    def shape(self, given: Shape) -> Shape:
        for name, array in (("mean", self.mean), ("std", self.std)):
            if array.size not in (1, given[-1]):
                raise InputError(f"layer {self.label!r}: {name} has {array.size} numbers for {given[-1]} channels")
        if (self.std == 0).any():
            raise InputError(f"layer {self.label!r}: std holds a zero")
        return given

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean) / self.std

    def emit(self, writer: OnnxWriter, value: str, given: Shape) -> str:
        shape = (-1, 1, 1) if len(given) == 3 else (-1,)
        mean = writer.weight(self.mean.reshape(shape), f"{self.label}/mean")
        std = writer.weight(self.std.reshape(shape), f"{self.label}/std")
        centered = writer.node("Sub", [value, mean], f"{self.label}/centered")
        return writer.node("Div", [centered, std], self.label)


def _windows(label: str, padding: Padding, given: Shape, kernel: Pair, stride: Pair) -> Pair:
    size = (given[0], given[1])
    found = counts(size, kernel, stride, margins(padding, size, kernel, stride))
    if min(found) < 1:
        raise InputError(f"layer {label!r}: windows {_text(kernel)} do not fit into images {_text(size)}")
    return found


def _onnx_pads(padding: Padding, given: Shape, kernel: Pair, stride: Pair) -> list[int]:
    (top, bottom), (left, right) = margins(padding, (given[0], given[1]), kernel, stride)
    return [top, left, bottom, right]


def _squeezed(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"
