"""What losses, attacks and counts are given (inputs, radii, domains, labels, scores), or one line on what is wrong."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from mipverify.errors import InputError, one_line

Domain: TypeAlias = tuple[float | Tensor, float | Tensor] | None


def whole(x: Tensor) -> Tensor:
    """Inputs (B, ...) in a type that bounds can be computed in: half precision as float32. Raises InputError."""
    if not isinstance(x, Tensor):
        raise InputError(f"a torch tensor is needed, not {type(x).__name__}")
    if x.is_meta or x.layout != torch.strided:
        raise InputError(
            "x: a dense tensor is needed" if not x.is_meta else "x has no values: it is on the device meta"
        )
    if not x.is_floating_point():
        raise InputError(f"x: floats are needed, not {str(x.dtype).removeprefix('torch.')}")
    if x.ndim == 0 or not len(x):
        raise InputError("x holds no input")
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def require_radius(eps: float | Tensor, x: Tensor) -> None:
    """Raise InputError unless eps is at least 0 and a number, or a tensor that broadcasts to x (B, *shape)."""
    if isinstance(eps, (bool, np.bool_)) or not isinstance(eps, (float, int, np.number, Tensor)):
        raise InputError(f"eps: a number or a tensor is needed, not {type(eps).__name__}")
    if isinstance(eps, Tensor) and (eps.dtype == torch.bool or eps.is_complex()):
        raise InputError(f"eps: a number or a tensor of numbers is needed, not of {str(eps.dtype)[6:]}")
    if not bool(torch.as_tensor(eps >= 0).all()):
        raise InputError("eps must be at least 0")
    if not _broadcasts(tuple(getattr(eps, "shape", ())), x):
        raise InputError(f"eps of shape {list(getattr(eps, 'shape', ()))} does not broadcast to x {list(x.shape)}")


def _broadcasts(shape: tuple[int, ...], x: Tensor) -> bool:
    """Whether a tensor of `shape` broadcasts to x, and not the other way round."""
    try:
        return tuple(torch.broadcast_shapes(shape, x.shape)) == tuple(x.shape)
    except RuntimeError:
        return False


def limits(domain: tuple[float | Tensor, float | Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The two sides of a domain as tensors that broadcast to x. Raises InputError where they do not."""
    try:
        low, high = (torch.as_tensor(side, dtype=x.dtype, device=x.device) for side in domain)
    except (TypeError, ValueError, RuntimeError):
        raise InputError("domain: the smallest and the largest legal value are needed, or None") from None
    if not (_broadcasts(tuple(low.shape), x) and _broadcasts(tuple(high.shape), x)):
        raise InputError(f"domain limits of shapes {list(low.shape)} and {list(high.shape)} for inputs {list(x.shape)}")
    return low, high


def require_domain(x: Tensor, domain: Domain) -> None:
    """Raise InputError, as `mipverify.robustness` does, unless all of x (B, *shape) lie in the domain."""
    if domain is None:
        return
    low, high = limits(domain, x)
    outside = ~((x >= low) & (x <= high))  # NaN is nowhere
    if bool(outside.any()):
        at = int(outside.reshape(-1).nonzero()[0])
        low, high = (side.expand_as(x).reshape(-1)[at] for side in (low, high))
        pixel, value = at % max(1, math.prod(x.shape[1:])), float(x.detach().reshape(-1)[at])
        raise InputError(
            f"image pixel {pixel} is {value:g}, outside of the domain [{float(low)}, {float(high)}]: normalized inputs "
            "need their own domain, or None"
        )


def class_labels(y: Tensor, count: int) -> Tensor:
    """Labels (B,), whole numbers of any type, as int64. Raises InputError unless there is one for each of `count`."""
    if not isinstance(y, Tensor):
        raise InputError(f"labels: a torch tensor is needed, not {type(y).__name__}")
    whole = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    if y.shape != (count,) or not whole:
        raise InputError(
            f"labels of shape {list(y.shape)} and type {str(y.dtype).removeprefix('torch.')}: the number of a class is "
            f"needed for each of {count} samples"
        )
    return y.long()


def require_classes(y: Tensor, classes: int) -> None:
    """Raise InputError unless all labels (B,) are numbers of `classes`."""
    if not bool(((y >= 0) & (y < classes)).all()):
        raise InputError(f"labels must lie between 0 and {classes - 1}")


def require_fraction(value: Any, what: str, most: float = 1.0) -> None:
    """Raise InputError unless a number lies above 0 and at most at `most`."""
    if not isinstance(value, (float, int, np.number)) or not 0 < value <= most:
        raise InputError(f"{what} must be above 0 and at most {most:g}, not {value!r}")


def scores(module: nn.Module, x: Tensor) -> Tensor:
    """What a module gives for inputs x (B, *shape): scores (B, classes). Raises InputError where it gives none."""
    if not callable(module):
        raise InputError(f"a torch.nn.Module is needed, not {type(module).__name__}")
    try:
        found = module(x)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the module's own code
        kind = f"shape {list(x.shape)} and type {str(x.dtype).removeprefix('torch.')}"
        raise InputError(f"the module cannot be run on x of {kind}: {one_line(error)}") from error
    if not isinstance(found, Tensor):
        raise InputError(f"the module must return one tensor of scores, not a {type(found).__name__}")
    if found.ndim != 2 or len(found) != len(x):
        raise InputError(f"scores of shape {list(found.shape)}: one row for each of {len(x)} inputs is needed")
    return found
