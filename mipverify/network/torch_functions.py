"""torch functions and tensor methods on symbolic tensors: arithmetic, activations, pooling, data movement."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mipverify.network import torch_choice as choice
from mipverify.network import torch_layers as layers
from mipverify.network.builder import Builder, Comparison, RewriteError, Tensor, positions
from mipverify.network.rewrites.activation import absolute_value, leaky
from mipverify.network.rewrites.comparison import opposite
from mipverify.network.rewrites.reduce import extreme, reduced
from mipverify.network.rewrites.registry import axis_of
from mipverify.network.torch_resize import interpolate

Function = Callable[..., Any]
_OWNERS = (torch, torch.nn.functional, operator)  # the functions of torch, and what Python's operators call


def own_name(target: Any) -> str | None:
    """The name of a function of torch or of Python's operators; None for any other, whatever its name."""
    name = getattr(target, "__name__", "")
    return name if any(getattr(owner, name, None) is target for owner in _OWNERS) else None


def call_function(builder: Builder, target: Any, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
    """The value of a function; one whose arguments are all constants is simply called."""
    if not _symbolic(arguments) and not _symbolic(list(options.values())):
        return target(*arguments, **options)
    if target is getattr:
        return _attribute(builder, arguments[0], arguments[1])
    name = own_name(target)
    if name is None:
        raise RewriteError("it is no function of torch, and what it computes cannot be seen: do not wrap it")
    if target is operator.getitem and not isinstance(arguments[0], Tensor):
        return arguments[0][arguments[1]]
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](builder, *arguments, **options)
    if name in MOVING and isinstance(arguments[0], Tensor):
        return layers.moved(builder, target, *arguments, **options)
    raise RewriteError("not supported")


def call_method(builder: Builder, name: str, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
    """The value of a method of a tensor."""
    x = arguments[0]
    if isinstance(x, Comparison):
        if name in ("clone", "double", "float", "to", "type"):
            return x  # as a mask it may have any type of numbers
        return _FUNCTIONS[name](builder, *arguments, **options) if name in _OF_COMPARISONS else _refuse(name)
    if not isinstance(x, Tensor) and not _symbolic(arguments):
        return getattr(x, name)(*arguments[1:], **options)
    if not isinstance(x, Tensor) and name not in _FUNCTIONS:
        raise RewriteError("not supported")
    if name == "size":
        return x.shape[arguments[1]] if len(arguments) > 1 else torch.Size(x.shape)
    if name == "dim":
        return len(x.shape)
    if name in ("double", "float", "to", "type", "type_as"):
        return _cast(builder, x, name, arguments[1:], options)
    if name in ("contiguous", "clone", "detach"):
        return x
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](builder, *arguments, **options)
    if name in MOVING:
        return layers.moved(builder, getattr(torch.Tensor, name), *arguments, **options)
    raise RewriteError("not supported")


def _cast(builder: Builder, x: Tensor, name: str, arguments: Sequence[Any], options: dict[str, Any]) -> Tensor:
    """x itself, where the cast (or move to a device) keeps real numbers: torch tells by casting no numbers at all."""

    def without_numbers(value: Any) -> Any:
        if isinstance(value, Comparison):
            return torch.zeros(0, dtype=torch.bool)
        return torch.zeros(0, dtype=_type(builder)) if isinstance(value, Tensor) else value

    given = [without_numbers(value) for value in (x, *arguments)]
    result = getattr(given[0], name)(*given[1:], **{key: without_numbers(value) for key, value in options.items()})
    kind = getattr(result, "dtype", None)
    if kind not in (torch.float32, torch.float64):
        raise RewriteError(f"a cast to {kind} rounds its values" if kind else "the name of a type is no tensor")
    if kind != torch.float64 and _type(builder) == torch.float64:
        raise RewriteError("a cast to float32 in a module of float64: its error would be beyond what is accounted for")
    return x


def _type(builder: Builder) -> torch.dtype:
    """That the module computes in."""
    return torch.from_numpy(np.zeros(0, builder.number_type)).dtype


def _refuse(name: str) -> None:
    raise RewriteError(f"{name} with a comparison of values that depend on the input, which jumps")


def _symbolic(arguments: Sequence[Any]) -> bool:
    return any(
        isinstance(a, (Tensor, Comparison)) or (isinstance(a, (list, tuple)) and _symbolic(a)) for a in arguments
    )


def _attribute(builder: Builder, x: Any, name: str) -> Any:
    if name == "shape":
        return torch.Size(x.shape)
    if name == "dtype":
        return torch.bool if isinstance(x, Comparison) else _type(builder)
    if name == "ndim":
        return len(x.shape)
    if name in ("T", "mT"):
        return layers.moved(builder, lambda p: getattr(p, name), x)
    raise RewriteError(f"attribute {name!r} is not supported")


def _constant(builder: Builder, value: Any) -> Any:
    """A constant operand as an array: a Python number is rounded to what torch computes in."""
    if isinstance(value, Comparison):
        _refuse("arithmetic")
    return value if isinstance(value, torch.Tensor) else builder.number(value)


def _sum(builder: Builder, a: Any, b: Any, sign: float = 1.0, alpha: float = 1.0) -> Tensor:
    """a + sign alpha b, either of them a constant."""
    if alpha != 1:
        b = _product(builder, b, alpha)
    shape = np.broadcast_shapes(*(tuple(getattr(v, "shape", ())) for v in (a, b)))
    tensors = [(builder.broadcast(v, shape), s) for v, s in ((a, 1.0), (b, sign)) if isinstance(v, Tensor)]
    total = builder.combine(tensors)
    for value, s in ((a, 1.0), (b, sign)):
        if not isinstance(value, Tensor):
            constant = _constant(builder, value)
            total = builder.shift(total, constant if s > 0 else -constant)
    return total


def _difference(builder: Builder, a: Any, b: Any, alpha: float = 1.0) -> Tensor:
    return _sum(builder, a, b, -1.0, alpha)


def _reverse_difference(builder: Builder, a: Any, b: Any) -> Tensor:
    return _sum(builder, b, a, -1.0)


def _product(builder: Builder, a: Any, b: Any) -> Any:
    if isinstance(a, Comparison) or isinstance(b, Comparison):
        mask, factor = (a, b) if isinstance(a, Comparison) else (b, a)
        return choice.where(builder, mask, factor, 0.0)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        raise RewriteError("a product of two tensors that depend on the input is not piecewise linear")
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        return a * b
    x, factor = (a, _constant(builder, b)) if isinstance(a, Tensor) else (b, _constant(builder, a))
    shape = np.broadcast_shapes(x.shape, tuple(factor.shape))
    return builder.scale(builder.broadcast(x, shape), factor)


def _quotient(builder: Builder, a: Any, b: Any) -> Tensor:
    if isinstance(b, Tensor):
        raise RewriteError("a quotient by a tensor that depends on the input is not piecewise linear")
    divisor = _constant(builder, b)
    divisor = divisor.double() if isinstance(divisor, torch.Tensor) else np.float64(divisor)
    if not bool((divisor != 0).all()):
        raise RewriteError("the divisor holds a zero")
    shape = np.broadcast_shapes(a.shape, tuple(divisor.shape))
    return builder.scale(builder.broadcast(a, shape), 1.0 / divisor, roundings=1)


def _linear(builder: Builder, x: Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Tensor:
    return builder.dense(x, weight, bias)


def _matmul(builder: Builder, a: Any, b: Any) -> Tensor:
    if isinstance(a, Tensor) and isinstance(b, torch.Tensor) and b.ndim <= 2:
        weight = b.T if b.ndim == 2 else b[None]
        y = builder.dense(a, weight)
        return y if b.ndim == 2 else y.viewed(y.shape[:-1])
    raise RewriteError("only products of a tensor with a constant matrix on its right are supported")


def _concatenated(builder: Builder, parts: Sequence[Any], dim: int = 0) -> Tensor:
    from mipverify.network.rewrites.shape import concatenated

    arrays = [p if isinstance(p, Tensor) else p.detach().cpu().numpy() for p in parts]
    return concatenated(builder, arrays, axis_of(dim, len(arrays[0].shape)))


def _stacked(builder: Builder, parts: Sequence[Any], dim: int = 0) -> Tensor:
    axis = axis_of(dim, len(parts[0].shape) + 1)
    single = [
        p.viewed((*p.shape[:axis], 1, *p.shape[axis:])) if isinstance(p, Tensor) else p.unsqueeze(axis) for p in parts
    ]
    return _concatenated(builder, single, axis)


def _reduction(mean: bool) -> Function:
    def reduction(builder: Builder, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
        axes = range(len(x.shape)) if dim is None else [dim] if isinstance(dim, int) else dim
        return reduced(builder, x, [axis_of(axis, len(x.shape)) for axis in axes], keepdim, mean)

    return reduction


def _extreme(sign: float) -> Function:
    def extreme_(builder: Builder, x: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
        axes = [dim] if isinstance(dim, int) else list(dim) or range(len(x.shape))
        return extreme(builder, x, sorted(axis_of(axis, len(x.shape)) for axis in axes), keepdim, sign)

    return extreme_


def _comparison(sign: float) -> Function:
    return lambda builder, a, b: choice.compared(builder, a, b, sign)


def _batch_norm(
    builder: Builder,
    x: Tensor,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training or running_mean is None:
        raise RewriteError("it is in training mode")
    return layers.batch_norm(builder, x, running_mean, running_var, weight, bias, eps)


def _leaky_relu(builder: Builder, x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return leaky(builder, x, builder.number(negative_slope))


def _dropout(builder: Builder, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if training:
        raise RewriteError("dropout is in training mode: pass training=self.training")
    return x


def _getitem(builder: Builder, x: Tensor, place: Any) -> Tensor:
    def torch_or_index(p: Any) -> Any:
        return p.detach().cpu() if isinstance(p, torch.Tensor) else p

    place = tuple(torch_or_index(p) for p in place) if isinstance(place, tuple) else torch_or_index(place)
    return builder.move(x, torch.from_numpy(positions(x.shape))[place].numpy())


_OF_COMPARISONS = ("bitwise_not", "logical_not", "mul", "multiply", "where")
MOVING = frozenset(
    {
        "diagonal",
        "fliplr",
        "flipud",
        "gather",
        "moveaxis",
        "ravel",
        "rot90",
        "swapdims",
        "take_along_dim",
        "chunk",
        "expand",
        "flatten",
        "flip",
        "index_select",
        "movedim",
        "narrow",
        "permute",
        "pixel_shuffle",
        "pixel_unshuffle",
        "repeat",
        "reshape",
        "roll",
        "select",
        "split",
        "squeeze",
        "swapaxes",
        "t",
        "tile",
        "transpose",
        "unbind",
        "unflatten",
        "unsqueeze",
        "view",
    }
)
_FUNCTIONS: dict[str, Function] = {
    "_threshold": choice.threshold,
    "abs": lambda builder, x: absolute_value(builder, x),
    "abs_": lambda builder, x: absolute_value(builder, x),
    "adaptive_avg_pool1d": layers.adaptive_average_pool,
    "adaptive_avg_pool2d": layers.adaptive_average_pool,
    "add": _sum,
    "add_": _sum,
    "avg_pool1d": layers.average_pool,
    "avg_pool2d": layers.average_pool,
    "batch_norm": _batch_norm,
    "cat": _concatenated,
    "amax": _extreme(1.0),
    "amin": _extreme(-1.0),
    "bitwise_not": opposite,
    "clamp": choice.clamp,
    "clamp_": choice.clamp,
    "clamp_max": lambda builder, x, bound: choice.clamp(builder, x, None, bound),
    "clamp_min": choice.clamp,
    "clip": choice.clamp,
    "concat": _concatenated,
    "conv1d": layers.convolution,
    "conv2d": layers.convolution,
    "conv_transpose1d": layers.transposed_convolution,
    "conv_transpose2d": layers.transposed_convolution,
    "div": _quotient,
    "div_": _quotient,
    "dropout": _dropout,
    "getitem": _getitem,
    "ge": _comparison(1.0),
    "greater": _comparison(1.0),
    "greater_equal": _comparison(1.0),
    "gt": _comparison(1.0),
    "hardsigmoid": choice.hardsigmoid,
    "hardtanh": choice.hardtanh,
    "interpolate": interpolate,
    "invert": opposite,
    "le": _comparison(-1.0),
    "less": _comparison(-1.0),
    "less_equal": _comparison(-1.0),
    "logical_not": opposite,
    "lt": _comparison(-1.0),
    "masked_fill": choice.masked_fill,
    "softshrink": choice.softshrink,
    "threshold": choice.threshold,
    "where": choice.where,
    "iadd": _sum,
    "imul": _product,
    "isub": _difference,
    "itruediv": _quotient,
    "leaky_relu": _leaky_relu,
    "leaky_relu_": _leaky_relu,
    "linear": _linear,
    "matmul": _matmul,
    "max_pool1d": layers.max_pool,
    "max_pool2d": layers.max_pool,
    "maximum": lambda builder, a, b: choice.extremum(builder, a, b, 1.0),
    "mean": _reduction(True),
    "minimum": lambda builder, a, b: choice.extremum(builder, a, b, -1.0),
    "mul": _product,
    "mul_": _product,
    "multiply": _product,
    "neg": lambda builder, x: builder.combine([(x, -1.0)]),
    "neg_": lambda builder, x: builder.combine([(x, -1.0)]),
    "pad": layers.pad,
    "prelu": layers.prelu,
    "relu": lambda builder, x, inplace=False: builder.relu(x),
    "relu6": lambda builder, x, inplace=False: choice.clamp(builder, x, 0.0, 6.0),
    "relu_": lambda builder, x: builder.relu(x),
    "rsub": _reverse_difference,
    "stack": _stacked,
    "sub": _difference,
    "sub_": _difference,
    "sum": _reduction(False),
    "truediv": _quotient,
}
