"""torch.nn.functional.interpolate on symbolic tensors."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional

from mipverify.network.builder import Builder, RewriteError, Tensor, positions
from mipverify.network.rewrites.resize import weighted

_LINEAR = ("linear", "bilinear", "trilinear")


def interpolate(
    builder: Builder,
    x: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Nearest entries, or interpolation along each axis; torch itself says which they are, and with which weights."""
    if antialias or mode not in ("nearest", "nearest-exact", *_LINEAR):
        raise RewriteError(f"mode {mode!r}{' with antialias' if antialias else ''} is not supported")
    if mode not in _LINEAR:
        where = torch.from_numpy(positions(x.shape)).float()  # float32 holds the positions of all tensors there are
        found = functional.interpolate(where, size, scale_factor, mode, None, recompute_scale_factor)
        return builder.move(x, found.long().numpy())
    axes = range(2, len(x.shape))
    sizes, factors = (
        list(value) if isinstance(value, (tuple, list)) else [value] * len(axes) for value in (size, scale_factor)
    )
    for axis, count, factor in zip(axes, sizes, factors, strict=True):
        unit = torch.eye(x.shape[axis], dtype=torch.from_numpy(builder.number([0])).dtype)[:, None]
        weights = functional.interpolate(unit, count, factor, "linear", align_corners, recompute_scale_factor)
        x = weighted(builder, x, axis, weights[:, 0].double().numpy())
    return x
