"""A network as a list of layers, with names for values that skip connections read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mipverify.errors import InputError
from mipverify.network.formats.layers import Layer, Shape, channels_first
from mipverify.network.formats.onnx_writer import OnnxWriter


@dataclass(frozen=True)
class Keep:
    """Remember the current value under a name."""

    name: str


@dataclass(frozen=True)
class Back:
    """Go on from a remembered value."""

    name: str


@dataclass(frozen=True)
class Add:
    """Add a remembered value to the current one."""

    name: str


Step = Layer | Keep | Back | Add
INPUT = "input"  # the name under which the input of the network is remembered


@dataclass(frozen=True)
class Program:
    """`steps` applied in order to inputs of shape `given`, (height, width, channels) or (features,)."""

    given: Shape
    steps: tuple[Step, ...]

    def shapes(self) -> list[Shape]:
        """The shape before each step, and last that of the result; raises InputError at the first that does not fit."""
        shapes, kept = [self.given], {INPUT: self.given}
        for step in self.steps:
            shape = shapes[-1]
            if isinstance(step, Keep):
                kept[step.name] = shape
            elif isinstance(step, Back):
                shape = _kept(kept, step.name)
            elif isinstance(step, Add):
                other = _kept(kept, step.name)
                if other != shape:
                    raise InputError(f"add={step.name}: shapes {list(other)} and {list(shape)} differ")
            else:
                shape = step.shape(shape)
            shapes.append(shape)
        return shapes

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """x (N, *given) in float64, channels last -> (N, outputs), images channels first, from weights as stored."""
        kept = {INPUT: x}
        for step in self.steps:
            if isinstance(step, Keep):
                kept[step.name] = x
            elif isinstance(step, Back):
                x = kept[step.name]
            elif isinstance(step, Add):
                x = x + kept[step.name]
            else:
                x = step.evaluate(x)
        return (np.moveaxis(x, -1, 1) if x.ndim == 4 else x).reshape(len(x), -1)

    def write(self, writer: OnnxWriter) -> Any:
        """The `onnx.ModelProto`, channels first."""
        value, kept, shapes = writer.input, {INPUT: writer.input}, self.shapes()
        for step, shape in zip(self.steps, shapes[:-1], strict=True):
            if isinstance(step, Keep):
                kept[step.name] = value
            elif isinstance(step, Back):
                value = kept[step.name]
            elif isinstance(step, Add):
                value = writer.node("Add", [value, kept[step.name]], f"add_{step.name}")
            else:
                value = step.emit(writer, value, shape)
        return writer.model(value, channels_first(shapes[-1]))


def _kept(kept: dict[str, Shape], name: str) -> Shape:
    if name not in kept:
        raise InputError(f"no value is named {name!r} at that point: `as={name}` must stand before it")
    return kept[name]
