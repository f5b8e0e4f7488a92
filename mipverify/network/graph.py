"""The network as a DAG of three node kinds: an input, sums of linear operators with a bias, and ReLUs.

Everything that an ONNX file may hold is rewritten into these on import. One nonlinearity is enough: leaky and
parametric ReLU, absolute value, clipping and maximum are ReLUs plus affine terms, with no loss in their relaxations
(a x + (b - a) relu(x) has the affine image of the ReLU's triangle as its convex hull).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

from mipverify.network.arrays import array_namespace
from mipverify.network.model_file import ModelFile
from mipverify.network.operators import Array, Operator, parameter_like

ENTRY_WORK = 8  # rough weight of arithmetic on one entry, in multiplications of a dense product


@dataclass(frozen=True)
class Input:
    """The one input of the network, node 0. `shape` is that of the ONNX file with symbolic sizes set to 1."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Term:
    """`operator` applied to the node with index `source`; sizes agree, shapes may be views of one another."""

    source: int
    operator: Operator


@dataclass(frozen=True, eq=False)
class Affine:
    """Sum of `terms` plus `bias` (an array of `shape`, or None).

    error_bound: what the node stands for may differ from that by this much, entry by entry; None for nothing.
    magnitude: entry by entry, the sum of the absolute values of what the bias was added up from; None for |bias|.
    steps: the most roundings of float32 that a product takes part in where the file's operators behind this are
    evaluated; 0 where they only move values. rounded: what these come to in the network that `deployed` makes; None
    where the node is spoken of in real numbers.
    """

    shape: tuple[int, ...]
    terms: tuple[Term, ...]
    bias: Array | None = None
    error_bound: Array | None = None
    magnitude: Array | None = None
    steps: int = 0
    rounded: Rounded | None = None

    @property
    def inexact(self) -> bool:
        """Whether the node's value may differ from its expression."""
        return self.error_bound is not None or (self.rounded is not None and self.rounded.roundings > 0)


@dataclass(frozen=True)
class Rounded:
    """roundings: the most that a product of a node's multiplied-out block takes part in; 0 for values that are only
    moved. open: whether the node's only reader goes on with the block; else its value is stored."""

    roundings: int
    open: bool


@dataclass(frozen=True)
class Relu:
    """max(0, source), entrywise, in the shape of its source: views are taken by the terms that read it."""

    shape: tuple[int, ...]
    source: int


Node: TypeAlias = Input | Affine | Relu


@dataclass(frozen=True, eq=False)
class Network:
    """A trained piecewise-linear network.

    nodes: in topological order, the input first. output: index of the node whose value the network returns.
    names: a name for each node, from the file it was read from. path, sha256, input_name, file: where it came from.
    tensors: the file's names of tensors, each with the node that has its entries.
    sites: for each ReLU node the first output of the file's node that it belongs to, and its number among the ReLU
    nodes of that (docs/proof-format.md).
    dropped: functions behind the output that keep the order of its entries, the innermost first ("Softmax", "ArgMax").
    """

    nodes: tuple[Node, ...]
    output: int
    names: tuple[str, ...] = ()
    path: str | None = None
    sha256: str | None = None
    input_name: str = "input"
    input_type: str | None = None  # element type of the file's input, such as float32
    notes: tuple[str, ...] = field(default=())  # e.g. that a trailing softmax was dropped
    dropped: tuple[str, ...] = ()
    double: bool = False  # its original computes in float64 throughout
    file: ModelFile | None = field(default=None, repr=False)
    tensors: tuple[tuple[str, int], ...] = field(default=(), repr=False)
    sites: Mapping[int, tuple[str, int]] = field(default_factory=dict, repr=False)
    module: Any = field(default=None, repr=False)  # the torch module it was imported from, if any
    inequalities: tuple[int, ...] = ()  # ReLU nodes whose pre-activations are never negative (`mipverify.network.pair`)
    pair: tuple[Network, Network] | None = field(default=None, repr=False)  # whose outputs are its own, if it is both
    parameters: Any = field(
        default=None, repr=False
    )  # the ParameterMap that makes its input, if it is not the file's own
    arithmetic: Literal["real", "float32"] = "real"  # whose values its nodes stand for (network/deployed.py)
    unrounded: str | None = "it was not read from an ONNX file"  # why those of float32 are not known, if they are not

    def __post_init__(self) -> None:
        for index, node in enumerate(self.nodes):
            if isinstance(node, Input) != (index == 0):
                raise ValueError(f"node {index}: a network has exactly one input, and it is node 0")
            for source in sources(node):
                if not 0 <= source < index:
                    raise ValueError(f"node {index} reads node {source}: not in topological order")
            if isinstance(node, Relu) and node.shape != self.nodes[node.source].shape:
                raise ValueError(f"node {index}: a ReLU of {node.shape} does not take {self.nodes[node.source].shape}")
            if isinstance(node, Affine):
                for term in node.terms:
                    if term.operator.in_size != math.prod(self.nodes[term.source].shape):
                        raise ValueError(f"node {index}: {term.operator} does not take {self.nodes[term.source].shape}")
                    if term.operator.out_size != math.prod(node.shape):
                        raise ValueError(f"node {index}: {term.operator} does not give {node.shape}")

    def __getstate__(self) -> dict[str, Any]:
        """What other processes get: in place of a module the bytes of what was traced of it."""
        if self.module is None:
            return vars(self)
        from mipverify.network.torch_import import packed

        return {**vars(self), "module": packed(self.module)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["module"] is not None:
            from mipverify.network.torch_import import unpacked

            state = {**state, "module": unpacked(state["module"])}
        vars(self).update(state)

    @property
    def order_only(self) -> bool:
        """Whether the output equals the file's only up to the order of its entries."""
        return bool(self.dropped)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.nodes[0].shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.nodes[self.output].shape

    @property
    def input_size(self) -> int:
        return math.prod(self.input_shape)

    @property
    def output_size(self) -> int:
        return math.prod(self.output_shape)

    @cached_property
    def relus(self) -> tuple[int, ...]:
        """Indices of the ReLU nodes, in order."""
        return tuple(i for i, node in enumerate(self.nodes) if isinstance(node, Relu))

    @cached_property
    def preactivations(self) -> tuple[int, ...]:
        """Indices of the nodes that ReLUs read, in order, each once."""
        return tuple(sorted({node.source for node in self.nodes if isinstance(node, Relu)}))

    def relu_source(self, index: int) -> int:
        """Index of the pre-activation that the ReLU node `index` reads."""
        node = self.nodes[index]
        if not isinstance(node, Relu):
            raise ValueError(f"node {index} is no ReLU but {node}")
        return node.source

    @cached_property
    def use_counts(self) -> tuple[int, ...]:
        """How many terms or ReLUs read each node."""
        counts = [0] * len(self.nodes)
        for node in self.nodes:
            for source in sources(node):
                counts[source] += 1
        return tuple(counts)

    @cached_property
    def work(self) -> tuple[int, ...]:
        """Multiplications of passing one row from each node back to the input, or one point up to it, about."""
        found: list[int] = []
        for node in self.nodes:
            own = ENTRY_WORK * math.prod(node.shape)
            if isinstance(node, Affine):
                own += sum(term.operator.work for term in node.terms)
            found.append(own + (found[-1] if found else 0))
        return tuple(found)

    def values(self, x: Array) -> list[Array]:
        """The value of every node at the inputs x (B, *input_shape), each (B, *shape)."""
        xp = array_namespace(x)
        values: list[Array] = []
        for node in self.nodes:
            if isinstance(node, Input):
                value = xp.reshape(x, (x.shape[0], *node.shape))
            elif isinstance(node, Relu):
                value = xp.reshape(xp.clip(values[node.source], min=0), (x.shape[0], *node.shape))
            else:
                value = affine_value(node, values)
            values.append(value)
        return values

    def forward(self, x: Array) -> Array:
        """Output (B, *output_shape) at the inputs x (B, *input_shape), in the dtype of x."""
        return self.values(x)[self.output]

    @staticmethod
    def from_torch(module: Any, input_shape: tuple[int, ...]) -> Network:
        """The network of a `torch.nn.Module` in evaluation mode, for inputs of `input_shape` (no batch axis).

        The operators hold the module's own parameters: bounds are differentiable in them, and follow their updates.
        Raises InputError that names the layer that cannot be imported.
        """
        from mipverify.network.torch_import import from_torch

        return from_torch(module, input_shape)

    def __repr__(self) -> str:
        units = sum(math.prod(self.nodes[i].shape) for i in self.relus)
        return (
            f"Network({list(self.input_shape)} -> {list(self.output_shape)}, {units} ReLUs, {self.path or 'in memory'})"
        )


def sources(node: Node) -> Iterator[int]:
    """Indices of the nodes that `node` reads."""
    if isinstance(node, Relu):
        yield node.source
    elif isinstance(node, Affine):
        for term in node.terms:
            yield term.source


def affine_value(node: Affine, values: list[Array]) -> Array:
    """The value (B, *shape) of an affine node, given those of earlier nodes."""
    total = None
    for term in node.terms:
        x = values[term.source]
        part = term.operator.apply(x.reshape(x.shape[0], *term.operator.in_shape))
        part = part.reshape(x.shape[0], *node.shape)
        total = part if total is None else total + part
    if node.bias is not None:
        like = values[0]
        bias = parameter_like(node.bias, like)[None]
        xp = array_namespace(like)
        total = xp.broadcast_to(bias, (like.shape[0], *node.shape)) if total is None else total + bias
    return total
