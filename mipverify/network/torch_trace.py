"""A torch module as a graph of its layers and functions: in evaluation mode, without wrappers, on the layers it has."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import fx
from torch.optim.swa_utils import AveragedModel

from mipverify.errors import InputError, one_line
from mipverify.network.torch_in_place import InPlaceTracer


def trace(module: torch.nn.Module) -> fx.GraphModule:
    """An unwrapped module as a graph of one input, on the layers of the module itself. Raises InputError.

    Arguments of its forward that have defaults are left at them: its code may ask for them.
    """
    with evaluating(module), _through_compiled():
        try:
            tracer = _Tracer()
            graph = tracer.trace(module, _defaults(module))
            _drop_options(graph)
            return fx.GraphModule(tracer.root, graph, type(module).__name__)
        except Exception as error:  # noqa: BLE001  # tracing runs the module's own code
            raise InputError(f"{type(module).__name__} cannot be traced by torch.fx: {one_line(error)}") from None


def unwrapped(module: Any) -> Any:
    """The module inside of `torch.compile`, of averages of weights, and of what shares it out between devices."""
    while True:
        if isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel, AveragedModel)):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), torch.nn.Module):
            module = inner
        else:
            return module


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """In here the module is in evaluation mode and runs as it is written; afterwards each part is as it was before."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with _uncompiled():
            yield
    finally:
        for part, training in modes:  # one by one: parts may be frozen
            part.training = training


class _Tracer(InPlaceTracer):
    """A tracer that goes into layers that are wrapped."""

    def call_module(self, m: torch.nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        inner = unwrapped(m)
        return super().call_module(m, forward, args, kwargs) if inner is m else inner(*args, **kwargs)


def _defaults(module: torch.nn.Module) -> dict[str, Any]:
    """The arguments of the module's forward besides the first that have defaults."""
    parameters = list(inspect.signature(type(module).forward).parameters.values())[2:]
    return {one.name: one.default for one in parameters if one.default is not inspect.Parameter.empty}


def _drop_options(graph: fx.Graph) -> None:
    """Remove the placeholders of arguments that were left at their defaults, with what torch.fx checks of them."""
    doomed: dict[fx.Node, None] = {}
    for node in graph.nodes:
        option = node.op == "placeholder" and node.args and any(n.op == "placeholder" for n in _before(node))
        if option or any(source in doomed for source in node.all_input_nodes):
            doomed[node] = None
    for node in reversed(doomed):
        graph.erase_node(node)


def _before(node: fx.Node) -> Iterator[fx.Node]:
    while (node := node.prev).op != "root":
        yield node


def _through_compiled() -> Any:
    """In here what `torch.compile` has made, of which a module may consist, is traced like the code it was made of."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled
        return nullcontext()
    return torch._dynamo.config.patch(error_on_nested_fx_trace=False)


def _uncompiled() -> Any:
    """In here what `torch.compile` has made is run as it was written: some inputs are not worth a compilation."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
