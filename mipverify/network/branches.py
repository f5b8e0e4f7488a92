"""An If whose condition is a constant: the nodes of the branch that is taken stand in its place."""

from __future__ import annotations

from collections.abc import Callable

from mipverify.errors import InputError
from mipverify.network.builder import Result, RewriteError
from mipverify.network.onnx_reader import stored_constants
from mipverify.network.ordering import ordered
from mipverify.network.rewrites.registry import OnnxNode


def taken(
    node: OnnxNode, values: dict[str, Result], rewriting: Callable[[OnnxNode, dict[str, Result]], tuple[Result, ...]]
) -> tuple[Result, ...]:
    """The outputs of an If. `values` are those of the graph around it, `rewriting` makes the outputs of one node."""
    condition = node.constant(0, "the condition")
    if condition.size != 1:
        raise RewriteError(f"the condition has {condition.size} entries")
    branch = node.get("then_branch" if condition.reshape(-1)[0] else "else_branch")
    try:
        known = {**values, **stored_constants(branch, "the branch that is taken")}
        nodes = ordered(branch, "the branch that is taken")
    except InputError as error:
        raise RewriteError(str(error)) from None
    for proto in nodes:
        missing = [name for name in proto.input if name and name not in known]
        inner = OnnxNode(proto, [known.get(name) for name in proto.input], node.opset)
        if missing:
            raise RewriteError(f"{inner.operator} (node {inner.name!r}) reads {missing[0]!r}, which nothing produces")
        try:
            outputs = rewriting(inner, known)
        except RewriteError as error:
            raise RewriteError(
                f"in the branch that is taken, {inner.operator} (node {inner.name!r}): {error}"
            ) from None
        known.update({name: value for name, value in zip(proto.output, outputs, strict=False) if name})
    return tuple(known[output.name] for output in branch.output)
