"""torch module -> Network, sharing the module's parameters: bounds are differentiable in the weights."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import fx
from torch.nn.parameter import is_lazy
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from mipverify.errors import InputError, one_line
from mipverify.network.arrays import all_finite
from mipverify.network.builder import Builder, RewriteError, Tensor
from mipverify.network.graph import Network
from mipverify.network.simplify import finish
from mipverify.network.snapshot import snapshot
from mipverify.network.torch_functions import call_function, call_method, own_name
from mipverify.network.torch_heads import TwoClasses, two_classes
from mipverify.network.torch_in_place import Memory
from mipverify.network.torch_layers import call_module
from mipverify.network.torch_trace import evaluating, trace, unwrapped

_RANKING = {
    "softmax": "Softmax",
    "log_softmax": "LogSoftmax",
    "sigmoid": "Sigmoid",
    "argmax": "ArgMax",
    "Softmax": "Softmax",
    "LogSoftmax": "LogSoftmax",
    "Sigmoid": "Sigmoid",
}


# Hooks before a layer that compute its weights: `torch.nn.utils.prune`, `weight_norm` and `spectral_norm`.
WEIGHT_HOOKS = (prune.BasePruningMethod, WeightNorm, SpectralNorm)

Statistics: TypeAlias = Mapping[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]]


def from_torch(
    module: torch.nn.Module,
    input_shape: tuple[int, ...],
    statistics: Statistics | None = None,
    traced: fx.GraphModule | None = None,
) -> Network:
    """The network of `module` in evaluation mode for inputs (1, *input_shape).

    statistics: mean and variance (channels,) that some batch normalizations use in place of their running ones; what is
    read so is for training, not for verification. traced: what `trace` gave for the module.

    The operators hold the module's parameters themselves, so that gradients of bounds flow into them and updates in
    place are seen. What is computed from them on import is not updated: after the running statistics of a batch
    normalization (or its scale) have changed, import again. A softmax, sigmoid or argmax at the very end is dropped.
    Raises InputError that names the layer that cannot be imported.
    """
    module = unwrapped(module)
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"a torch.nn.Module is needed, not {type(module).__name__}")
    try:
        shape = (1, *(int(size) for size in input_shape))
    except (TypeError, ValueError):
        raise InputError(
            f"input_shape must be the sizes of the axes, such as (1, 28, 28), not {input_shape!r}"
        ) from None
    if min(shape) < 1:
        raise InputError(f"input_shape {tuple(input_shape)} has a size below 1")
    network = read_module(module, shape, "float64" if _double(module) else "float32", statistics, traced)
    if statistics is None:
        _require_idle_hooks(module, network)
    return network


def read_module(
    module: torch.nn.Module,
    shape: tuple[int, ...],
    number: str,
    statistics: Statistics | None = None,
    traced: fx.GraphModule | None = None,
) -> Network:
    """The network of an unwrapped module for inputs of `shape`, the batch axis included.

    number: the type that Python numbers in its code are rounded to; with float64, it computes in float64 throughout.
    """
    if isinstance(module, TwoClasses):
        return two_classes(read_module(module.scorer, shape, number), module)
    require_weights(module)
    recompute_weights(module)
    for name, parameter in [*module.named_parameters(), *module.named_buffers()]:
        if parameter.dtype in (torch.float16, torch.bfloat16) or parameter.is_quantized:
            raise InputError(f"parameter {name!r} has element type {parameter.dtype}: convert the module to float32")
        if parameter.is_floating_point() and not all_finite(parameter):
            raise InputError(f"parameter {name!r} holds NaN or infinity")
    traced = trace(module) if traced is None else traced
    builder = Builder(shape, "input", number=number)
    output, dropped = _interpret(traced, builder, statistics or {})
    notes = tuple(
        f"{name} at the end dropped: only properties of the order of the outputs can be verified" for name in dropped
    )
    return finish(
        builder,
        output,
        notes=notes,
        dropped=tuple(_RANKING[name] for name in dropped),
        module=module,
        double=number == "float64",
    )


def require_weights(module: torch.nn.Module) -> None:
    """Raise InputError for a module that has no Python code, or no values of parameters, to be read."""
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise InputError("a scripted module cannot be read: give the module that it was made from")
    for name, parameter in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(parameter):
            raise InputError(f"parameter {name!r} has no shape yet: run the module on an input first")
        if parameter.is_meta:
            raise InputError(f"parameter {name!r} has no values: it is on the device meta")


def recompute_weights(module: torch.nn.Module) -> None:
    """Compute the weights that hooks make of parameters, as the next call of each layer in evaluation mode would."""
    with evaluating(module):  # in training mode a spectral norm would be estimated anew
        for part in module.modules():
            for hook in part._forward_pre_hooks.values():
                if isinstance(hook, WEIGHT_HOOKS):
                    hook(part, None)


def _require_idle_hooks(module: torch.nn.Module, network: Network) -> None:
    """Raise InputError where a module has hooks and is, as a whole, not what its layers are without them.

    Hooks that only look on are common; whether they do is seen by running the module.
    """
    hooked = [name for name, part in module.named_modules() if _has_hooks(part)]
    if not hooked:
        return
    from mipverify.network.replay import ModuleReplay
    from mipverify.network.validation import compare

    points = np.random.default_rng(0).random((2, network.input_size)).astype(np.float32)
    outputs = ModuleReplay(module, network.input_shape).run(points)
    try:
        compare(snapshot(network), points, outputs)
    except InputError:
        where = repr(hooked[0]) if hooked[0] else "the module itself"
        raise InputError(
            f"hooks (the first of them on {where}) change what the module gives: make their work part of its forward"
        ) from None


def _has_hooks(part: torch.nn.Module) -> bool:
    before = [hook for hook in part._forward_pre_hooks.values() if not isinstance(hook, WEIGHT_HOOKS)]
    return bool(before or part._forward_hooks)


def _double(module: torch.nn.Module) -> bool:
    """Whether the module computes in float64 throughout."""
    types = {p.dtype for p in (*module.parameters(), *module.buffers()) if p.is_floating_point()}
    return types == {torch.float64}


def packed(module: torch.nn.Module) -> bytes:
    """A module as other processes can take it that have not the code of its class: as it was traced.

    As bytes, because tensors on their way to a process would be shared with it in memory.
    """
    if isinstance(module, TwoClasses):
        return pickle.dumps(TwoClasses(_traced(module.scorer), module.tie))
    return pickle.dumps(_traced(module))


def unpacked(content: bytes) -> torch.nn.Module:
    """The module that `packed` gave."""
    module: torch.nn.Module = pickle.loads(content)
    return module


def _traced(module: torch.nn.Module) -> torch.nn.Module:
    traced = trace(module)
    for node in traced.graph.nodes:
        node.type = None  # annotations that are strings would be looked for when it is unpacked
    traced.recompile()
    return traced


def _interpret(traced: fx.GraphModule, builder: Builder, statistics: Statistics) -> tuple[Tensor, list[str]]:
    """Run the traced graph on symbolic tensors -> its output, and the names of ranking layers dropped at its end."""
    values: dict[fx.Node, Any] = {}
    dropped: list[str] = []
    memory = Memory(traced)
    given = [node for node in traced.graph.nodes if node.op == "placeholder"]
    if len(given) != 1:
        raise InputError(f"exactly one input is supported, the module takes {len(given)}")
    for node in traced.graph.nodes:
        builder.name = str(node.target) if node.op == "call_module" else node.name
        arguments = fx.node.map_arg(node.args, lambda n: values[n])
        options = fx.node.map_arg(node.kwargs, lambda n: values[n])
        try:
            if node.op == "placeholder":
                values[node] = builder.input
            elif node.op == "get_attr":
                values[node] = _attribute(traced, node.target)
            elif node.op == "output":
                result = arguments[0]
                if not isinstance(result, Tensor):
                    raise InputError("the module must return one tensor that depends on its input")
                return result, dropped
            elif _ranks(node, traced, arguments):
                dropped.append(_kind(node, traced))
                values[node] = arguments[0]
            elif node.op == "call_module":
                layer = traced.get_submodule(node.target)
                values[node] = call_module(builder, layer, arguments[0], statistics.get(layer))
            elif node.op == "call_method":
                values[node] = call_method(builder, node.target, arguments, options)
            else:
                values[node] = call_function(builder, node.target, arguments, options)
            values.update(dict.fromkeys(memory.changed_by(node, values), values.get(node)))
        except (RewriteError, TypeError, IndexError, ValueError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            where = f"layer {builder.name!r} ({_kind(node, traced)})"
            raise InputError(f"{where} cannot be imported: {one_line(error)}") from None
    raise InputError("the traced module has no output")


def _attribute(traced: fx.GraphModule, target: str) -> Any:
    value: Any = traced
    for part in target.split("."):
        value = getattr(value, part)
    return value


def _kind(node: fx.Node, traced: fx.GraphModule) -> str:
    if node.op == "call_module":
        return type(traced.get_submodule(str(node.target))).__name__
    return str(getattr(node.target, "__name__", node.target))


def _ranks(node: fx.Node, traced: fx.GraphModule, arguments: tuple[Any, ...]) -> bool:
    """Whether `node` only ranks the entries of its argument and nothing but the output reads it."""
    if not _is_ranking(node, traced) or not isinstance(arguments[0], Tensor):
        return False
    last, x = node, arguments[0]
    while len(last.users) == 1 and _is_ranking(next(iter(last.users)), traced):
        last = next(iter(last.users))
    alone = all(user.op == "output" for user in last.users)
    return alone and math.prod(x.shape[:-1]) == 1  # one row of entries: they are all compared


def _is_ranking(node: fx.Node, traced: fx.GraphModule) -> bool:
    if node.op == "call_function" and own_name(node.target) is None:
        return False
    return _kind(node, traced) in _RANKING
