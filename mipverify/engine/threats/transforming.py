"""Rotation, translation and scaling with bilinear interpolation, each up to a radius."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from mipverify.engine.budget import Clock
from mipverify.engine.distortion import GAP, Distortion
from mipverify.engine.driver import silent
from mipverify.engine.scores import score_case
from mipverify.engine.threats.sample import Sample
from mipverify.engine.threats.shares import Shared, smallest_share
from mipverify.engine.threats.sweep import Sweep
from mipverify.engine.threats.threat import Limits, Threat
from mipverify.engine.verdict import Verdict
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.network.deployed import in_arithmetic
from mipverify.network.snapshot import snapshot
from mipverify.specification import Box, Case
from mipverify.specification.exact import canonical, domain_limits, exact_number, float_up
from mipverify.specification.threats.transform import Transforms

#: The largest radius of each: beyond, planes around pixels are not computed.
MOST = {"rotation": Fraction(180), "translation": Fraction(10**4), "scaling": Fraction(1, 2)}


@dataclass(frozen=True)
class Transforming(Threat):
    """All images turned by at most `rotation` degrees, moved by at most `translation` pixels along each axis, and made
    larger or smaller by at most the share `scaling`, to both sides and all together. Outside of an image is 0."""

    rotation: Fraction = Fraction(0)
    translation: Fraction = Fraction(0)
    scaling: Fraction = Fraction(0)

    provable: ClassVar[bool] = False

    def transforms(self, sample: Sample, share: Fraction = Fraction(1)) -> Transforms:
        """The transforms of a sample whose parameters go up to a share of the threat's. Raises InputError."""
        sample.without_radius(self.text)
        limits = domain_limits(sample.domain)
        if limits is not None and not limits[0] <= 0 <= limits[1]:
            raise InputError(f"threat {self.text}: outside of an image is 0, which the domain does not hold")
        image = np.asarray(sample.image)
        if not np.issubdtype(image.dtype, np.floating):
            raise InputError(f"image must hold floats (uint8 pixels divided by 255), not {image.dtype}")
        radius = {
            "rotation": share * self.rotation,
            "right": share * self.translation,
            "down": share * self.translation,
            "scaling": share * self.scaling,
        }
        pixels = sample.pixels
        return Transforms(pixels.planes(image.astype(np.float64)), pixels, radius, sample.normalization)

    def verify(self, network: Network, sample: Sample, limits: Limits) -> Verdict:
        return self._swept(network, sample, limits, Fraction(1)).verdict

    def distance(
        self, network: Network, sample: Sample, limits: Limits, gap: float = GAP, max_distance: float | None = None
    ) -> Distortion:
        """The smallest share of the threat, all parameters alike; 1 is all of it."""

        def ask(share: float, limits: Limits) -> Shared:
            return self._swept(network, sample, limits, Fraction(share))

        most = 1.0 if max_distance is None else max_distance
        return smallest_share(ask, most, self.measured_in(sample.norm), limits, gap)

    def _swept(self, network: Network, sample: Sample, limits: Limits, share: Fraction) -> Shared:
        """The answer about a share of the threat, and the share that its counterexample needs."""
        network = in_arithmetic(snapshot(network), limits.arithmetic)
        transforms = self.transforms(sample, share)
        judged = sample.conditions(network.output_size)
        still = Box.from_floats(*[transforms.values(np.zeros((1, len(transforms.names))))[0]] * 2)
        conditions = score_case(network, Case(still, judged)).conditions
        clock, told = Clock(limits.timeout), limits.progress or silent
        sweep = Sweep(network, transforms, conditions, judged, clock, limits.seed, told)
        verdict = sweep.run()
        if sweep.parameters is None:
            return Shared(verdict, None)
        own: Mapping[str, Any] = self.transforms(sample).radius
        used = max(abs(Fraction(value)) / own[name] for name, value in sweep.parameters.items())
        return Shared(verdict, min(float_up(used), float_up(share)))


def transforming(parts: Mapping[str, str]) -> Transforming:
    """The threat of some of `rotation`, `translation` and `scaling`, each up to a number. Raises InputError."""
    radius: dict[str, Fraction] = {}
    for name, text in parts.items():
        radius[name] = exact_number(text, f"threat {name}")
        if not 0 < radius[name] <= MOST[name]:
            raise InputError(f"threat {name}:{text}: must lie between 0 and {canonical(MOST[name])}")
    text = ",".join(f"{name}:{canonical(radius[name])}" for name in MOST if name in radius)
    return Transforming(text, *(radius.get(name, Fraction(0)) for name in MOST))
