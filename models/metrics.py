"""Unstable units as a metric of torchmetrics, for loops that collect their figures so."""

from __future__ import annotations

from typing import Any

import torch
from mipverify.models.arguments import Domain
from mipverify.models.counting import unstable_units
from mipverify.models.traced import Model
from torch import Tensor

try:
    from torchmetrics import Metric
except ImportError as error:
    raise ImportError("the metric needs torchmetrics: pip install 'mipverify[lightning]'") from error


class UnstableUnitsMetric(Metric):
    """The mean number of ReLUs of a sample whose sign bounds leave undecided: `metric.update(model, x)`.

    eps, bounds, domain: as in `unstable_units`. relative: their share of all ReLUs in place of their number.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    unstable: Tensor
    samples: Tensor
    units: Tensor

    def __init__(
        self,
        eps: float,
        *,
        bounds: str = "interval",
        domain: Domain = (0.0, 1.0),
        relative: bool = False,
        **options: Any,
    ):
        super().__init__(**options)
        self.eps, self.bounds, self.domain, self.relative = eps, bounds, domain, relative
        for name in ("unstable", "samples", "units"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, model: Model, x: Tensor) -> None:
        """Count over a batch x (B, *shape)."""
        found = unstable_units(model, x, self.eps, bounds=self.bounds, domain=self.domain)
        self.unstable += float(found.counts.sum())
        self.samples += len(x)
        self.units += len(x) * sum(found.units)

    def compute(self) -> Tensor:
        """The mean over all samples."""
        return self.unstable / (self.units if self.relative else self.samples)
