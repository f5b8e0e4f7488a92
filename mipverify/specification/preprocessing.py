"""What lies between a data file and the network: a scale, a domain, mean and std, and the order of axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from mipverify.errors import InputError
from mipverify.specification.exact import canonical, domain_limits, exact_number, nearest_float, shorten
from mipverify.specification.layout import LAYOUTS
from mipverify.specification.normalization import numbers

#: What makes grey levels 0 to 255 numbers from 0 to 1.
GREY = Fraction(1, 255)


@dataclass(frozen=True)
class Preprocessing:
    """x = scale * stored are the inputs that radii and domains are about; the network takes (x - mean) / std.

    domain: legal values of x, or None for no limits. scale: None leaves it to the type of the stored values and the
    domain. mean, std: one number, or one for each channel (or feature). layout: how the file holds images, nchw or
    nhwc; None leaves it to the shapes.
    """

    domain: tuple[Fraction, Fraction] | None = (Fraction(0), Fraction(1))
    scale: Fraction | None = None
    mean: tuple[Fraction, ...] = (Fraction(0),)
    std: tuple[Fraction, ...] = (Fraction(1),)
    layout: str | None = None

    @classmethod
    def of(
        cls,
        *,
        domain: tuple[object, object] | None = (0, 1),
        scale: object = None,
        mean: object = 0,
        std: object = 1,
        layout: str | None = None,
    ) -> Preprocessing:
        """From numbers as users write them, each read exactly: "1/255", 0.1307, ["0.49", "0.48"]. Raises InputError."""
        limits = domain_limits(domain)
        if limits is not None and domain is not None:
            for limit, text in zip(limits, domain, strict=True):
                _require_float(limit, f"domain limit {shorten(str(text))}")
        factor = None if scale is None else exact_number(scale, "scale")
        if factor is not None and factor <= 0:
            raise InputError(f"scale must be positive, not {shorten(str(scale))}")
        means, stds = tuple(numbers(mean, "mean")), tuple(numbers(std, "std"))
        for value in stds:
            if value <= 0:
                raise InputError(f"std must be positive, not {canonical(value)}")
            _require_float(1 / value, f"std {shorten(canonical(value))}: its inverse")
        for name, values in (("mean", means), ("std", stds)):
            for value in values:
                _require_float(value, f"{name} {shorten(canonical(value))}")
        if layout is not None and layout not in LAYOUTS:
            raise InputError(f"layout {shorten(layout)!r} is not one of {', '.join(LAYOUTS)}")
        return cls(limits, factor, means, stds, layout)

    def scale_of_pixels(self, path: str) -> Fraction:
        """What uint8 pixels are multiplied by where no scale was asked for: it follows from their domain.

        Raises:
            InputError: the domain is neither that of grey levels nor within [0, 1].
        """
        if self.domain == (Fraction(0), Fraction(255)):
            return Fraction(1)
        if self.domain is None or (self.domain[0] >= 0 and self.domain[1] <= 1):
            return GREY
        span = ",".join(map(canonical, self.domain))
        raise InputError(
            f"{path}: uint8 pixels and the domain {span} leave open what a pixel is: state the scale ({GREY} makes "
            "them 0 to 1, 1 leaves them as they are), and what the network subtracts and divides by as mean and std"
        )

    @property
    def normalizes(self) -> bool:
        """Whether the network is given anything but x itself."""
        return self.mean != (Fraction(0),) or self.std != (Fraction(1),)

    def record(self) -> dict[str, Any]:
        """As text and lists of text, the same for settings that mean the same."""
        return {
            "domain": "none" if self.domain is None else ",".join(map(canonical, self.domain)),
            "scale": None if self.scale is None else canonical(self.scale),
            "mean": [canonical(v) for v in self.mean],
            "std": [canonical(v) for v in self.std],
            "layout": self.layout,
        }

    def described(self, scale: Fraction, what: str) -> str:
        """In words, such as `uint8 pixels times 1/255, domain 0,1; the network takes (x - 0.1307) / 0.3081`."""
        record = self.record()
        text = f"{what} {'as they are' if scale == 1 else f'times {canonical(scale)}'}, domain {record['domain']}"
        if self.normalizes:
            mean, std = (", ".join(record[key]) for key in ("mean", "std"))
            text += (
                f"; the network takes (x - {mean}) / {std}"
                if "," not in mean + std
                else (f"; the network takes (x - mean) / std, mean {mean}, std {std}")
            )
        return text + (f"; layout {self.layout}" if self.layout else "")


def _require_float(number: Fraction, what: str) -> None:
    """Refuse a number larger than all floats."""
    if math.isinf(nearest_float(number)):
        raise InputError(f"{what} is beyond every float64")
