"""The table of ONNX operators, and what a rewrite sees of one node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from mipverify.network.builder import Builder, Comparison, Result, RewriteError, Tensor, Value


class OnnxNode:
    """One node of an ONNX graph with its attributes read and its inputs looked up."""

    def __init__(self, proto: Any, inputs: Sequence[Result | None], opset: int):
        self.proto, self.inputs, self.opset = proto, tuple(inputs), opset

    @property
    def operator(self) -> str:
        return str(self.proto.op_type)

    @property
    def name(self) -> str:
        return str(self.proto.name or (self.proto.output[0] if self.proto.output else "unnamed"))

    @cached_property
    def attributes(self) -> dict[str, Any]:
        from onnx.helper import get_attribute_value

        values = {attribute.name: get_attribute_value(attribute) for attribute in self.proto.attribute}
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}

    def get(self, attribute: str, default: Any = None) -> Any:
        return self.attributes.get(attribute, default)

    def value(self, index: int) -> Value | None:
        """Input `index`, or None where it was left out."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(value, Comparison):
            raise RewriteError(
                f"input {index} ({self.input_name(index)!r}) is a comparison of values that depend on the network's "
                "input, which jumps: only Where, Not and products can take it"
            )
        return value

    def present(self, index: int) -> Value:
        """Input `index`, a constant or not, which must be there."""
        value = self.value(index)
        if value is None:
            raise RewriteError(f"input {index} is missing")
        return value

    def tensor(self, index: int) -> Tensor:
        """Input `index`, which must depend on the network's input."""
        value = self.present(index)
        if not isinstance(value, Tensor):
            raise RewriteError(f"input {index} ({self.input_name(index)!r}) must not be a constant")
        return value

    def comparison(self, index: int) -> Comparison:
        """Input `index`, which must be a comparison of tensors that depend on the network's input."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(value, Comparison):
            raise RewriteError(f"input {index} ({self.input_name(index)!r}) must be a comparison")
        return value

    def constant(self, index: int, what: str) -> np.ndarray:
        """Input `index`, which must be a constant; `what` names it in the error."""
        value = self.optional_constant(index, what)
        if value is None:
            raise RewriteError(f"{what} is missing")
        return value

    def optional_constant(self, index: int, what: str) -> np.ndarray | None:
        """Input `index`, a constant or left out."""
        value = self.value(index)
        if isinstance(value, Tensor):
            raise RewriteError(
                f"{what} ({self.input_name(index)!r}) depends on the network's input; only constants work"
            )
        return value

    def input_name(self, index: int) -> str:
        return str(self.proto.input[index]) if index < len(self.proto.input) else ""

    def integers(self, attribute: str, index: int | None = None) -> list[int] | None:
        """A list of integers that is an attribute in old opsets and input `index` in new ones; None if absent."""
        if attribute in self.attributes:
            value = self.attributes[attribute]
            return [int(v) for v in (value if isinstance(value, (list, tuple)) else [value])]
        constant = None if index is None else self.optional_constant(index, attribute)
        return None if constant is None else [int(v) for v in np.asarray(constant).reshape(-1)]

    def check_constants(self) -> None:
        """Raises RewriteError at constants in half precision, and at infinity where it is no bound."""
        for index, value in enumerate(self.inputs):
            if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
                continue
            if value.dtype == np.float16:
                reason = "has element type float16: convert the model to float32"
                raise RewriteError(f"input {index} ({self.input_name(index)!r}) {reason}")
            if self.operator not in ("Clip", "Max", "Min", "Where") and not np.isfinite(value).all():
                raise RewriteError(f"input {index} ({self.input_name(index)!r}) holds infinity")


Rewrite: TypeAlias = Callable[[Builder, OnnxNode], Result | tuple[Value, ...]]
REWRITES: dict[str, Rewrite] = {}


def rewrite(*operators: str) -> Callable[[Rewrite], Rewrite]:
    """Enter a function as the rewrite of `operators`."""

    def enter(function: Rewrite) -> Rewrite:
        for operator in operators:
            REWRITES[operator] = function
        return function

    return enter


def axis_of(axis: int, rank: int) -> int:
    """A possibly negative axis as a position."""
    if not -rank <= axis < rank:
        raise RewriteError(f"axis {axis} is out of range for {rank} axes")
    return axis % rank
