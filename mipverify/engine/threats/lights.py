"""Brightness and contrast, blur, and mixtures with another image: affine images of few parameters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from mipverify.engine.distortion import GAP, Distortion
from mipverify.engine.family import Family, blur, brightness_and_contrast, mixture
from mipverify.engine.threats.sample import Sample
from mipverify.engine.threats.threat import Limits, Threat
from mipverify.engine.verdict import Verdict
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.specification.exact import canonical, domain_limits, exact_number, float_if_exact, float_up


@dataclass(frozen=True)
class _OfFamily(Threat):
    """A threat that is a family of images."""

    @abstractmethod
    def family(self, sample: Sample) -> Family:
        """The family of a sample. Raises InputError."""

    def names(self) -> tuple[str, ...]:
        """What its parameters are called; none where these are too many to be told."""
        return ()

    def verify(self, network: Network, sample: Sample, limits: Limits) -> Verdict:
        verdict = self._checked(sample, limits).verify(
            network, sample.label, targets=sample.targets, **limits.options("arithmetic")
        )
        return replace(verdict, statistics=self._told(verdict.statistics))

    def distance(
        self, network: Network, sample: Sample, limits: Limits, gap: float = GAP, max_distance: float | None = None
    ) -> Distortion:
        """The smallest share of the family; 1 is all of it."""
        found = self._checked(sample, limits).minimum_distortion(
            network,
            sample.label,
            targets=sample.targets,
            gap=gap,
            max_distance=1.0 if max_distance is None else max_distance,
            **limits.options("arithmetic"),
        )
        return replace(found, norm=self.measured_in(sample.norm), statistics=self._told(found.statistics))

    def _told(self, statistics: Mapping[str, object]) -> dict[str, object]:
        parameters = statistics.get("parameters")
        named = self.names()
        worst = None
        if isinstance(parameters, list) and named:
            worst = dict(zip(named, parameters, strict=True))
        return {**statistics, "parts": 1, "worst": worst}

    def _checked(self, sample: Sample, limits: Limits) -> Family:
        sample.without_radius(self.text)
        if limits.arithmetic != "real":
            raise InputError(f"threat {self.text}: can be asked about in real arithmetic only")
        if sample.normalization is not None:
            raise InputError(f"threat {self.text}: cannot be combined with a mean or std")
        return self.family(sample)

    @staticmethod
    def _clip(sample: Sample) -> tuple[float, float] | None:
        limits = domain_limits(sample.domain)
        if limits is None:
            return None
        lower, upper = map(float_if_exact, limits)
        if lower is None or upper is None:  # images clipped to the next float64 would be others than those stated
            raise InputError(f"domain {sample.domain}: its limits have to be float64 numbers for this threat")
        return lower, upper


@dataclass(frozen=True)
class Light(_OfFamily):
    """All images clip((1 + c) x + b) with |b| <= brightness and |c| <= contrast."""

    brightness: Fraction = Fraction(0)
    contrast: Fraction = Fraction(0)

    def family(self, sample: Sample) -> Family:
        return brightness_and_contrast(
            sample.image, float_up(self.brightness), float_up(self.contrast), clip=self._clip(sample)
        )

    def names(self) -> tuple[str, ...]:
        return ("brightness", "contrast")


@dataclass(frozen=True)
class Blur(_OfFamily):
    """All images that a kernel of size x size with entries >= 0 that sum to one makes."""

    size: int = 3

    def family(self, sample: Sample) -> Family:
        pixels = sample.pixels
        planes = pixels.planes(np.asarray(sample.image, np.float64))
        made = blur(planes, self.size)
        back = np.argsort(pixels.entries.reshape(-1))  # planes in the order of channels, entries in that of the input
        return replace(made, matrix=made.matrix[back], offset=made.offset[back])


@dataclass(frozen=True)
class Mixture(_OfFamily):
    """All images (1 - t) x + t y with 0 <= t <= 1, y another image of the data."""

    index: int = 0

    def family(self, sample: Sample) -> Family:
        if sample.other is None:
            raise InputError(f"threat {self.text}: there are no other images here")
        return mixture(sample.image, sample.other(self.index))

    def names(self) -> tuple[str, ...]:
        return ("share",)


def light(parts: Mapping[str, str]) -> Light:
    """The threat of `brightness` and `contrast`, each up to a number. Raises InputError."""
    radius: dict[str, Fraction] = {}
    for name, text in parts.items():
        radius[name] = exact_number(text, f"threat {name}")
        if radius[name] <= 0:
            raise InputError(f"threat {name}:{text}: must be positive")
    text = ",".join(f"{name}:{canonical(radius[name])}" for name in ("brightness", "contrast") if name in radius)
    return Light(text, radius.get("brightness", Fraction(0)), radius.get("contrast", Fraction(0)))


def whole(name: str, text: str) -> int:
    """A whole number from 0. Raises InputError."""
    number = exact_number(text, f"threat {name}")
    if number.denominator != 1 or number < 0:
        raise InputError(f"threat {name}:{text}: must be a whole number")
    return int(number)


def blurring(text: str) -> Blur:
    """The threat `blur:size`. Raises InputError."""
    size = whole("blur", text)
    if size % 2 == 0:
        raise InputError(f"threat blur:{text}: a blur kernel needs an odd size")
    return Blur(f"blur:{size}", size)


def mixing(text: str) -> Mixture:
    """The threat `mixture:index`. Raises InputError."""
    index = whole("mixture", text)
    return Mixture(f"mixture:{index}", index)
