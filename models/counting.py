"""Counts of ReLUs whose sign bounds leave undecided: what the verifier will have to branch on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from mipverify.models.differentiable import Domain, limits, require_domain, whole
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
    eps: float,
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
    if not eps >= 0:
        raise InputError(f"eps {eps}: at least 0 is needed")
    points = whole(x.detach()).cpu().numpy() if isinstance(x, torch.Tensor) else x
    shape = tuple(points.shape[1:]) if input_shape is None else input_shape
    network = detached(network_of(model, shape))
    points = points.astype(np.float64)
    lower, upper = points - eps, points + eps
    if domain is not None:
        require_domain(torch.from_numpy(points), domain)
        low, high = (side.numpy() for side in limits(domain, torch.from_numpy(points)))
        lower, upper = lower.clip(low, high), upper.clip(low, high)
    lower, upper = (side.reshape(-1, *network.input_shape) for side in (lower, upper))
    found = interval(network, lower, upper)
    if bounds == "crown":
        found = crown(found)
    names = tuple(network.names[i] if network.names else f"relu {i}" for i in network.relus)
    units = tuple(math.prod(network.nodes[i].shape) for i in network.relus)
    return UnstableUnits(names, units, found.unstable_counts())
