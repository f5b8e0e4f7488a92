"""Bounds of every value in a network, for a batch of input boxes: the common answer of all presolve methods."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from mipverify.network import Network
from mipverify.network.operators import Array
from mipverify.specification.regions import Region


@dataclass(frozen=True, eq=False)
class Bounds:
    """Proven bounds `lower[i] <= value of node i <= upper[i]` for each input box of a batch.

    lower, upper: one array (B, *shape of node i) for each node, the input box first. The bounds of the nodes that
    ReLUs read are what methods tighten; the others are what interval arithmetic makes of these. region: what cuts the
    input sets out of their boxes, if anything.
    """

    network: Network
    lower: tuple[Array, ...]
    upper: tuple[Array, ...]
    region: Region | None = None

    @property
    def batch(self) -> int:
        return max(int(x.shape[0]) for x in self.lower)

    def unstable(self, node: int) -> Array:
        """Mask (B, *shape) of the units of a ReLU (or of its pre-activation) whose sign is not decided."""
        source = getattr(self.network.nodes[node], "source", node)
        return (self.lower[source] < 0) & (self.upper[source] > 0)

    def unstable_counts(self) -> np.ndarray:
        """Undecided units of each ReLU node, (B, number of ReLU nodes)."""
        counts = [np.asarray(self.unstable(node)).reshape(self.batch, -1).sum(1) for node in self.network.relus]
        return np.stack(counts, axis=1) if counts else np.zeros((self.batch, 0), dtype=int)

    def known(self) -> dict[int, tuple[Array, Array]]:
        """The bounds of the nodes that ReLUs read: what another method may start from."""
        return {node: (self.lower[node], self.upper[node]) for node in self.network.preactivations}

    def select(self, samples: Any) -> Bounds:
        """The bounds of some of the boxes, by index array or slice."""
        lower, upper = tuple(x[samples] for x in self.lower), tuple(x[samples] for x in self.upper)
        return replace(self, lower=lower, upper=upper)

    def astype(self, dtype: Any) -> Bounds:
        """Numpy bounds in another precision. Rounded to nearest: for searching, not for concluding."""
        lower, upper = tuple(x.astype(dtype) for x in self.lower), tuple(x.astype(dtype) for x in self.upper)
        return replace(self, lower=lower, upper=upper)

    def outward(self, dtype: Any) -> Bounds:
        """Numpy bounds in a lower precision, rounded outward: as sound as they were."""
        lower, upper = [], []
        for low, high in zip(self.lower, self.upper, strict=True):
            down, up = low.astype(dtype), high.astype(dtype)
            lower.append(np.where(down > low, np.nextafter(down, dtype(-np.inf)), down))
            upper.append(np.where(up < high, np.nextafter(up, dtype(np.inf)), up))
        return replace(self, lower=tuple(lower), upper=tuple(upper))

    def finite(self) -> Array:
        """Mask (B,): boxes for which every bound is a finite number; nothing may be concluded for the others."""
        xp = array_namespace(self.lower[0])
        good = None
        for bound in (*self.lower, *self.upper):
            here = xp.all(xp.reshape(xp.isfinite(bound), (self.batch, -1)), axis=1)
            good = here if good is None else good & here
        return good

    def __repr__(self) -> str:
        mean = self.unstable_counts().mean(axis=0) if self.batch else []
        return f"Bounds(batch {self.batch}, mean unstable units by layer {[round(float(m), 1) for m in mean]})"
