"""A torch module together with its network, traced once and kept up to date while the weights change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

import torch
from mipverify.models.arguments import whole
from mipverify.models.centered import centered_bounds, update_running
from mipverify.models.differentiable import Method, RowCount, TrainingBounds, training_bounds
from mipverify.models.normalization import batch_normalizations, clean_statistics
from torch import fx, nn
from torch.nn.utils import parametrize

from mipverify.errors import InputError
from mipverify.network import Affine, Network
from mipverify.network.operators import Array
from mipverify.network.snapshot import snapshot
from mipverify.network.torch_import import WEIGHT_HOOKS, from_torch
from mipverify.network.torch_trace import trace, unwrapped
from mipverify.proof.bounds import Intervals

StatisticsOf: TypeAlias = Literal["clean", "centers"]  # what batch normalizations in training mode use


class Traced:
    """A module and the network of it that bounds are computed on; give it to losses in place of the module.

    Tracing costs some milliseconds. The network shares the module's parameters, so updates in place are seen without
    tracing again. It is traced anew where layers, parameters or buffers were replaced, and for each use where weights
    are computed from parameters: batch normalization, parametric ReLUs, `torch.nn.utils.prune`,
    `torch.nn.utils.parametrize`, masks multiplied in `forward`. Batch normalization that is in training mode is bounded
    with the statistics of a clean pass over the batch (`clean_statistics`), else with its running statistics.

    input_shape: of one input, without the batch axis. statistics: "clean", or "centers" to bound batch normalization in
    training mode with the statistics of the bounds' centres, in the same pass, without a clean one; bounds
    move the running statistics then, and the module itself is to be called in evaluation mode only. Raises InputError
    that names a layer that cannot be imported.
    """

    def __init__(self, module: nn.Module, input_shape: tuple[int, ...], *, statistics: StatisticsOf = "clean"):
        if statistics not in get_args(StatisticsOf):
            raise InputError(f"statistics {statistics!r}: one of {', '.join(get_args(StatisticsOf))} is needed")
        self.module, self.statistics = unwrapped(module), statistics
        self._graph: tuple[tuple[int, ...], fx.GraphModule] | None = None
        try:
            self.input_shape = tuple(int(size) for size in input_shape)
        except (TypeError, ValueError):
            raise InputError(f"input_shape: sizes of axes are needed, not {input_shape!r}") from None
        self._network = self._trace()
        self._state = self._present()

    @property
    def network(self) -> Network:
        """The network with the module's present weights; use it for one backward pass."""
        if self._state is None or self._state != self._present():
            self._network = self._trace()
            self._state = self._present()
        return self._network

    @property
    def centered(self) -> bool:
        """Whether there are layers that normalize by the centres of bounds, as the module's modes are now."""
        return self.statistics == "centers" and bool(batch_normalizations(self.module))

    def network_at(self, x: torch.Tensor) -> Network:
        """The network as the module's modes have it for a batch x (B, *shape); use it for one backward pass."""
        if not batch_normalizations(self.module):
            return self.network
        graph = self._graph_of_module()
        return from_torch(self.module, self.input_shape, clean_statistics(self.module, x, graph), graph)

    def centered_bounds(self, lower: torch.Tensor, upper: torch.Tensor) -> Intervals:
        """Interval bounds over boxes by the statistics of their centres, to which running statistics move."""
        network = from_torch(self.module, self.input_shape, {}, self._graph_of_module())
        found, statistics = centered_bounds(self.module, network, lower, upper)
        update_running(statistics)
        return found

    def _graph_of_module(self) -> fx.GraphModule:
        module = self.module
        parts = tuple(id(part) for part in (*module.modules(), *module.parameters(), *module.buffers()))
        if self._graph is None or self._graph[0] != parts:
            self._graph = parts, trace(module)
        return self._graph[1]

    def _present(self) -> tuple[Any, ...] | None:
        """What the network holds apart from the values of parameters; None where these are not all."""
        if any(_is_computed(part) for part in self.module.modules()) or any(map(_has_history, _arrays(self._network))):
            return None
        try:
            parameters = tuple((p.data_ptr(), p.dtype) for p in self.module.parameters())
            buffers = tuple((b.data_ptr(), b.dtype, b._version) for b in self.module.buffers())
        except RuntimeError:  # transforms of torch.func put tensors without memory in their place
            return None
        return tuple(id(part) for part in self.module.modules()), parameters, buffers

    def _trace(self) -> Network:
        return Network.from_torch(self.module, self.input_shape)

    def __repr__(self) -> str:
        return f"Traced({type(self.module).__name__}, {list(self.input_shape)})"


Model: TypeAlias = nn.Module | Network | Traced


def network_of(model: Model, input_shape: tuple[int, ...] | None, x: torch.Tensor | None = None) -> Network:
    """The network of a module (traced here and now), of a `Traced`, or the network itself.

    x: the batch (B, *shape) that it is trained on; without one, all is in evaluation mode.
    """
    if isinstance(model, Network):
        return model
    if not isinstance(model, Traced):
        if not isinstance(unwrapped(model), nn.Module):
            raise InputError(f"a torch.nn.Module, a Traced or a Network is needed, not {type(model).__name__}")
        if input_shape is None:
            raise InputError("input_shape is needed to trace a torch.nn.Module")
        model = Traced(model, input_shape)
    return model.network if x is None else model.network_at(x)


def bounds_of(
    model: Model,
    x: torch.Tensor,
    lower: torch.Tensor,
    upper: torch.Tensor,
    method: Method = "interval",
    *,
    input_shape: tuple[int, ...] | None = None,
    rows: RowCount = None,
    generator: torch.Generator | None = None,
) -> TrainingBounds:
    """`training_bounds` of a model, as its modes have it, over boxes (B, *input_shape) around a batch x (B, *shape)."""
    if isinstance(model, Traced) and model.centered:
        found = model.centered_bounds(lower, upper)
        if method == "interval":
            return TrainingBounds(found, {})
        network = found.network
    else:
        network = network_of(model, tuple(x.shape[1:]) if input_shape is None else input_shape, whole(x))
    return training_bounds(network, lower, upper, method, rows=rows, generator=generator)


def logits_of(model: Model, x: torch.Tensor, bounded: Network | None = None) -> torch.Tensor:
    """Outputs (B, classes) at x (B, *shape), by the module itself where there is one.

    bounded: the network of bounds of this step, which has the statistics where they are those of centres.
    """
    if isinstance(model, Traced) and model.centered and bounded is not None:
        model = bounded
    if isinstance(model, Network):
        out = model.forward(x.reshape(x.shape[0], *model.input_shape))
    else:
        out = (model.module if isinstance(model, Traced) else model)(x)
    return out.reshape(x.shape[0], -1)


def detached(network: Network) -> Network:
    """A copy of the network with its present weights as numpy arrays, for the presolve methods of verification."""
    return replace(snapshot(network), module=None)


def _is_computed(part: nn.Module) -> bool:
    """Whether a layer's weights in the network are computed from its state rather than being its parameters."""
    hooked = any(isinstance(hook, WEIGHT_HOOKS) for hook in part._forward_pre_hooks.values())
    return hooked or parametrize.is_parametrized(part) or isinstance(part, nn.modules.batchnorm._BatchNorm)


def _has_history(array: Array) -> bool:
    """Whether an array is more than a parameter or a view of one: its history serves one backward pass only."""
    if not isinstance(array, torch.Tensor) or array.is_leaf:
        return False
    return not (array._is_view() and array._base is not None and array._base.is_leaf)


def _arrays(network: Network) -> Iterator[Array]:
    for node in network.nodes:
        if isinstance(node, Affine):
            for term in node.terms:
                yield from term.operator.parameters()
            if node.bias is not None:
                yield node.bias
