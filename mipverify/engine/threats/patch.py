"""A square patch anywhere in the image: its pixels take any legal value, or change by at most a radius."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from mipverify.engine.distortion import GAP, Distortion
from mipverify.engine.threats.parts import verify_parts
from mipverify.engine.threats.sample import Sample
from mipverify.engine.threats.shares import Shared, smallest_share
from mipverify.engine.threats.threat import Limits, Threat
from mipverify.engine.verdict import Verdict
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.specification import Box
from mipverify.specification.exact import domain_limits, exact_number
from mipverify.specification.robustness import linf_ball


@dataclass(frozen=True)
class Patch(Threat):
    """Pixels, in all channels, of a square of size x size pixels at any position; all others stay as they are.

    With a radius they change by at most that much; else they take any value of the domain.
    """

    size: int = 1

    radius: ClassVar[Literal["needed", "allowed", "none"]] = "allowed"

    def positions(self, sample: Sample) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """For each position the mask (P, n) of its entries, and its first row and column; those in the middle first.

        Raises InputError where the patch is larger than the image.
        """
        pixels = sample.pixels
        height, width = pixels.height - self.size + 1, pixels.width - self.size + 1
        if height < 1 or width < 1:
            raise InputError(
                f"threat {self.text}: the patch is larger than the image of {pixels.height} x {pixels.width} pixels"
            )
        rows, columns = (side.reshape(-1) for side in np.mgrid[:height, :width])
        order = np.argsort(np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2), kind="stable")
        masks = np.zeros((len(order), pixels.entries.size), bool)
        names = []
        for place, at in enumerate(order.tolist()):
            row, column = int(rows[at]), int(columns[at])
            masks[place, pixels.entries[:, row : row + self.size, column : column + self.size].reshape(-1)] = True
            names.append({"row": row, "column": column})
        return masks, names

    def boxes(self, sample: Sample, masks: np.ndarray) -> Box:
        """The boxes of some positions (P, n), one after the other."""
        if sample.norm != "linf":
            raise InputError(f"threat {self.text}: the radius of a patch is one in linf, not in {sample.norm}")
        limits, radius = domain_limits(sample.domain), sample.eps
        if radius is None:
            if limits is None:
                raise InputError(f"threat {self.text}: without limits of the domain it needs a radius (eps)")
            radius = limits[1] - limits[0]  # as far as the domain goes
        still, free = (
            linf_ball(sample.image, eps, domain=sample.domain, normalization=sample.normalization)
            for eps in (0, radius)
        )
        size = still.size
        return Box.joined([still, free]).spread((np.arange(size) + size * masks).reshape(-1))

    def measured_in(self, norm: str) -> str:
        return f"{norm} within a patch"

    def verify(self, network: Network, sample: Sample, limits: Limits) -> Verdict:
        masks, names = self.positions(sample)
        return verify_parts(network, self.boxes(sample, masks), names, sample, limits)

    def distance(
        self, network: Network, sample: Sample, limits: Limits, gap: float = GAP, max_distance: float | None = None
    ) -> Distortion:
        """The smallest radius at which a patch somewhere changes the class."""
        domain = domain_limits(sample.domain)
        if domain is None and max_distance is None:
            raise InputError("without limits of the domain a largest distance is needed")
        most = min(float("inf") if domain is None else float(domain[1] - domain[0]), max_distance or float("inf"))

        def ask(radius: float, limits: Limits) -> Shared:
            verdict = self.verify(network, replace(sample, eps=radius), limits)
            if verdict.witness is None:
                return Shared(verdict, None)
            z = verdict.witness.input.astype(np.float64)
            x = z if sample.normalization is None else sample.normalization.undone(z)
            moved = float(np.abs(x - np.asarray(sample.image, np.float64).reshape(-1)).max())
            return Shared(verdict, min(radius, moved * (1 + 1e-9) + 1e-12))

        return smallest_share(ask, most, self.measured_in(sample.norm), limits, gap)


def patch(size: object) -> Patch:
    """The threat `patch:size`. Raises InputError."""
    number = exact_number(size, "patch")
    if number.denominator != 1 or number < 1:
        raise InputError(f"threat patch:{size}: a patch is a whole number of pixels wide")
    return Patch(f"patch:{number}", int(number))
