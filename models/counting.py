"""Counts of ReLUs whose sign bounds leave undecided: what the verifier will have to branch on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mipverify.models.arguments import Domain, whole
from mipverify.models.differentiable import input_box
from mipverify.models.traced import Model, detached, network_of
from mipverify.presolve import crown, interval

from mipverify.errors import InputError

_METHODS = ("interval", "crown")


@dataclass(frozen=True, eq=False)
class UnstableUnits:
    """Undecided units of each ReLU layer.

    counts: (B, layers), one row for each sample. units: how many there are in each layer. layers: their names.
    """

    layers: tuple[str, ...]
    units: tuple[int, ...]
    counts: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Undecided units of each layer, averaged over samples (layers,)."""
        return self.counts.mean(axis=0)

    def __str__(self) -> str:
        parts = [f"{name} {mean:.1f}/{n}" for name, mean, n in zip(self.layers, self.mean, self.units, strict=True)]
        return ", ".join([*parts, f"all {self.mean.sum():.1f}/{sum(self.units)}"])


def unstable_units(
    model: Model,
    x: torch.Tensor | np.ndarray,
    eps: float | torch.Tensor,
    *,
    bounds: str = "interval",
    domain: Domain = (0.0, 1.0),
    input_shape: tuple[int, ...] | None = None,
) -> UnstableUnits:
    """Units that are undecided over the l_inf ball of radius eps around each of x (B, *shape), clipped to `domain`.

    By the proven bounds of verification in float64, with the present weights: "interval" arithmetic or "crown".
    A `MaskedReLU` counts its kept units only.
    """
    if bounds not in _METHODS:
        raise InputError(f"bounds {bounds!r}: one of {', '.join(_METHODS)} is needed")
    points = whole(x.detach() if isinstance(x, torch.Tensor) else _tensor(x)).cpu().double()
    shape = tuple(points.shape[1:]) if input_shape is None else input_shape
    network = detached(network_of(model, shape))
    lower, upper = (side.numpy() for side in input_box(points, eps, domain))
    lower, upper = (side.reshape(-1, *network.input_shape) for side in (lower, upper))
    found = interval(network, lower, upper)
    if bounds == "crown":
        found = crown(found)
    names = tuple(network.names[i] if network.names else f"relu {i}" for i in network.relus)
    units = tuple(math.prod(network.nodes[i].shape) for i in network.relus)
    return UnstableUnits(names, units, found.unstable_counts())


def _tensor(x: Any) -> Any:
    """An array as a tensor; what is none, or holds no numbers, is left for others to refuse."""
    return torch.from_numpy(x) if isinstance(x, np.ndarray) and x.dtype.kind in "fiub" else x
