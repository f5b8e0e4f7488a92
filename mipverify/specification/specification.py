"""Specification: a question about a network, as input sets and the output conditions that would violate it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mipverify.errors import InputError
from mipverify.specification.conditions import Condition
from mipverify.specification.declarations import Declarations, Tensor
from mipverify.specification.sets import Box, InputSet
from mipverify.specification.statement import RobustnessStatement

if TYPE_CHECKING:
    from mipverify.network import Network


@dataclass(frozen=True, eq=False)
class Case:
    """Violated by one of the `inputs` at which any of the `conditions` holds."""

    inputs: InputSet
    conditions: tuple[Condition, ...]

    @property
    def box(self) -> Box:
        """A box around the inputs."""
        return self.inputs.box

    def violated_by(self, x: ArrayLike, y: ArrayLike) -> bool:
        """Exact decision for one float32 input and the output that belongs to it, of any shapes."""
        flat = np.asarray(x).reshape(-1)
        return self.inputs.contains(flat) and any(c.satisfied(flat, y) for c in self.conditions)

    def __repr__(self) -> str:
        return f"Case({self.inputs}, {len(self.conditions)} conditions)"


@dataclass(frozen=True, eq=False)
class Specification:
    """Violated by an input that violates any of the `cases`; holds when there is none.

    `kind` is "vnnlib" or "robustness"; `path` and `sha256` (of the file as it is on disk) are None without a file.
    `declarations`: the networks as the file declares them (VNN-LIB 2).
    `assumed`: a magnitude that stands in for bounds which inputs do not have; a part of the set is asked about then.
    `statement`: what was asked, where the cases were made of a robustness question.
    """

    cases: tuple[Case, ...]
    kind: str
    path: str | None = None
    sha256: str | None = None
    declarations: Declarations | None = None
    assumed: float | None = None
    statement: RobustnessStatement | None = field(default=None, repr=False)

    @property
    def declared(self) -> tuple[Tensor, Tensor] | None:
        """The input and the output as the file declares them, where it is about one network with one of each."""
        if self.declarations is None or not self.declarations.plain:
            return None
        (network,) = self.declarations.networks
        return network.inputs[0], network.outputs[0]

    @property
    def num_inputs(self) -> int:
        """Number of inputs n, flattened."""
        return self.cases[0].inputs.size

    @property
    def num_outputs(self) -> int:
        """Number of outputs k, flattened."""
        return self.cases[0].conditions[0].output_rows.shape[1]

    def violated_by(self, x: ArrayLike, y: ArrayLike) -> bool:
        """Exact decision for one float32 input and the output that belongs to it, of any shapes."""
        return any(case.violated_by(x, y) for case in self.cases)

    def require_network(self, network: Network) -> None:
        """Raise `InputError` unless this can be asked of `network`: sizes, and shapes and types that were declared."""
        if self.declarations is not None and not self.declarations.plain and not _composed(network):
            names = ", ".join(one.name for one in self.declarations.networks)
            raise InputError(
                f"{self._where}is about several networks, inputs or outputs, or about hidden tensors ({names}): "
                "load what it is about with mipverify.load_query"
            )
        if _composed(network):
            for case in self.cases:
                network.file.require_within(*case.box.enclosure)  # type: ignore[union-attr]
        if "ArgMax" in network.dropped and self.num_outputs == 1 < prod(network.output_shape):
            raise InputError(
                f"{self._where}the property is about one output, but {network.path or 'the network'} ends in a class: "
                f"{'; '.join(network.notes)} (compare its {prod(network.output_shape)} scores with each other)"
            )
        self.require_shapes(network.input_shape, network.output_shape)
        if self.declared is None:
            for one in () if self.declarations is None else self.declarations.networks:
                for tensor in one.inputs:
                    self._require_element("input", tensor, network.input_type)
            return
        found = ((network.input_shape, network.input_type), (network.output_shape, None))
        for what, mine, (shape, element) in zip(("input", "output"), self.declared, found, strict=True):
            if _without_ones(mine.shape) != _without_ones(shape):
                raise InputError(
                    f"{self._where}declares its {what} {mine.name} as {list(mine.shape)}, the network's {what} is "
                    f"{list(shape)}: which element is which would be a guess"
                )
            self._require_element(what, mine, element)

    def _require_element(self, what: str, mine: Tensor, element: str | None) -> None:
        """Raise `InputError` where a declared tensor has another type than the network's, if both are known."""
        if None not in (mine.element, element) and mine.element != element:
            raise InputError(
                f"{self._where}declares its {what} {mine.name} as {mine.element}, the network's is {element}"
            )

    def require_shapes(self, input_shape: Sequence[int], output_shape: Sequence[int]) -> None:
        """Raise `InputError` unless a network of these shapes has as many inputs and outputs as are spoken of here."""
        for what, mine, shape in (
            ("input", self.num_inputs, input_shape),
            ("output", self.num_outputs, output_shape),
        ):
            if prod(shape) != mine:
                theirs = f"{prod(shape)} (shape {tuple(shape)})"
                raise InputError(f"{self._where}the property has {mine} {what}{'s'[: mine != 1]}, the network {theirs}")

    @property
    def _where(self) -> str:
        return f"{self.path}: " if self.path else ""

    def __repr__(self) -> str:
        conditions = sum(len(case.conditions) for case in self.cases)
        origin = f", {self.path}" if self.path else ""
        return f"Specification({self.kind}{origin}: {len(self.cases)} boxes, {conditions} conditions)"


def _composed(network: Network) -> bool:
    from mipverify.network.compose import ComposedModel

    return isinstance(network.file, ComposedModel)


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """Axes of length 1 do not change which element comes first in row-major order."""
    return tuple(size for size in shape if size != 1)
