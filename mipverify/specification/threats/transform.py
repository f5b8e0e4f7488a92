"""Rotated, moved and scaled images with bilinear interpolation [Engstrom et al. 2019]: what they are, exactly.

A transform moves what is at q, measured in pixels from the middle of the image, to (1 + s) R q + t: R turns by an angle
(in degrees, counter-clockwise as the image is looked at), t moves to the right and down, s makes larger. The pixel at p
of the transformed image has the value of the image at R^-1 (p - t) / (1 + s), interpolated bilinearly; outside of the
image all is 0. The network is given these real numbers, after (x - mean) / std where that is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mipverify.errors import InputError
from mipverify.specification.exact import float_up
from mipverify.specification.normalization import Normalization
from mipverify.specification.threats.pixels import Pixels
from mipverify.specification.threats.trigonometry import cosine_sine, exact_cosine_sine

#: The parameters of a transform, in this order: degrees, pixels to the right, pixels down, a share of the size.
AXES = ("rotation", "right", "down", "scaling")
BORDER = 2  # zeros around an image: what lies outside of it reads two of them

_TOLERANCE = 1e-10  # of floats that `values` gives, for each unit of the largest value: far above their errors


@dataclass(frozen=True, eq=False)
class Transforms:
    """All transforms of an image whose parameters go up to a radius each, to both sides.

    image: float64 (channels, height, width), taken as exactly the numbers they are. radius: by name of AXES, those
    that vary. normalization: of the flat input, or None.
    """

    image: NDArray[np.float64]
    pixels: Pixels
    radius: Mapping[str, Fraction]
    normalization: Normalization | None = None

    def __post_init__(self) -> None:
        if not np.isfinite(self.image).all():
            raise InputError("the image holds a value that is not finite")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The parameters that vary."""
        return tuple(name for name in AXES if self.radius.get(name))

    @property
    def size(self) -> int:
        """Number of inputs n."""
        return int(self.image.size)

    @property
    def outward(self) -> NDArray[np.float64]:
        """The radius of each parameter (k,), rounded up."""
        return np.array([float_up(self.radius[name]) for name in self.names])

    @property
    def inward(self) -> NDArray[np.float64]:
        """The radius of each parameter (k,), rounded down: floats within it are parameters."""
        return np.array([-float_up(-self.radius[name]) for name in self.names])

    def contains(self, parameters: NDArray[np.float64]) -> bool:
        """Whether parameters (k,) are allowed, decided exactly."""
        return all(
            abs(Fraction(value)) <= self.radius[name]
            for name, value in zip(self.names, parameters.tolist(), strict=True)
        )

    def named(self, parameters: NDArray[np.float64]) -> dict[str, float]:
        """Parameters (k,) by name."""
        return dict(zip(self.names, parameters.tolist(), strict=True))

    def columns(self, parameters: NDArray[np.float64]) -> list[NDArray[np.float64] | float]:
        """Parameters (..., k) as one array (...) for each of AXES, 0 where it does not vary."""
        where = {name: k for k, name in enumerate(self.names)}
        return [parameters[..., where[name]] if name in where else 0.0 for name in AXES]

    @cached_property
    def centered(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Columns and rows (height * width,) of all pixels, from the middle of the image."""
        height, width = self.image.shape[1:]
        rows, columns = np.mgrid[:height, :width]
        return (columns - (width - 1) / 2).reshape(-1), (rows - (height - 1) / 2).reshape(-1)

    @cached_property
    def padded(self) -> NDArray[np.float64]:
        """The image with zeros around it (channels, height + 2 BORDER, width + 2 BORDER)."""
        return np.pad(self.image, ((0, 0), (BORDER, BORDER), (BORDER, BORDER)))

    def values(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """The network inputs (N, n) that parameters (N, k) make, up to rounding: for searching."""
        pixels = self.interpolated(np.asarray(parameters, np.float64))
        flat = np.empty((len(pixels), self.size))
        flat[:, self.pixels.entries.reshape(-1)] = pixels.reshape(len(pixels), -1)
        if self.normalization is None:
            return flat
        return (flat - self.normalization.mean) / self.normalization.std

    def interpolated(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """The pixels (N, channels, height * width) that parameters (N, k) make, up to rounding."""
        height, width = self.image.shape[1:]
        angle, right, down, larger = (np.reshape(v, (-1, 1)) for v in self.columns(parameters))
        cosine, sine = cosine_sine(angle * (math.pi / 180))
        u, v = self.centered[0] - right, self.centered[1] - down
        x = (u * cosine - v * sine) / (1 + larger) + (width - 1) / 2 + BORDER
        y = (u * sine + v * cosine) / (1 + larger) + (height - 1) / 2 + BORDER
        x, y = np.broadcast_arrays(np.clip(x, 0.0, width + 2.5), np.clip(y, 0.0, height + 2.5))
        left, top = x.astype(np.intp), y.astype(np.intp)
        a, b = x - left, y - top
        at = top * self.padded.shape[2] + left
        flat = self.padded.reshape(len(self.padded), -1)
        below = at + self.padded.shape[2]
        upper = flat[:, at] * (1 - a) + flat[:, at + 1] * a
        lower = flat[:, below] * (1 - a) + flat[:, below + 1] * a
        return np.moveaxis(upper * (1 - b) + lower * b, 0, 1)

    def float32(self, parameters: NDArray[np.float64]) -> NDArray[np.float32] | None:
        """The float32 input (n,) nearest to what parameters (k,) make, decided exactly.

        None where that is open: an entry lies in the middle between two of them, as far as anybody can tell.
        """
        near = self.values(parameters[None])[0]
        off = _TOLERANCE * self._largest
        low, high = (near - off).astype(np.float32), (near + off).astype(np.float32)
        open_ = np.flatnonzero(low != high)
        if len(open_):
            source = _Source.of(self, parameters)
            place = np.empty(self.size, np.intp)
            place[self.pixels.entries.reshape(-1)] = np.arange(self.size)
            for entry in open_.tolist():
                found = self._exactly(source, entry, int(place[entry]))
                if found is None:
                    return None
                low[entry] = found
        return low

    @cached_property
    def _largest(self) -> float:
        largest = 1 + float(np.abs(self.image).max(initial=0.0))
        if self.normalization is None:
            return largest
        norm = self.normalization
        return (largest + float(np.abs(norm.mean).max())) * max(1.0, float((1 / norm.std).max()))

    def _exactly(self, source: _Source, entry: int, place: int) -> np.float32 | None:
        """The float32 nearest to an entry of the input, which is entry `place` in the order of channels and pixels."""
        channel, pixel = divmod(place, self.image[0].size)
        low, high = source.value(self.image[channel], pixel)
        if self.normalization is not None:
            mean, std = self.normalization.pairs[self.normalization.which[entry]]
            low, high = (low - mean) / std, (high - mean) / std
        down, up = nearest_float32(low), nearest_float32(high)
        return down if down == up else None


def nearest_float32(value: Fraction) -> np.float32:
    """The float32 nearest to a number; of two that are as near, the even one."""
    guess = np.float32(float(value))
    around = (np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf)))

    def distance(x: np.float32) -> tuple[Fraction, int]:
        return abs(Fraction(float(x)) - value), int(x.view(np.int32)) & 1

    return min(around, key=distance)


@dataclass(frozen=True)
class _Source:
    """Where the pixels of a transformed image are read, in rational numbers: cosine and sine within a tiny interval."""

    transforms: Transforms
    cosine: Fraction
    sine: Fraction
    width: Fraction  # of the intervals around both
    right: Fraction
    down: Fraction
    factor: Fraction  # 1 / (1 + s)

    @classmethod
    def of(cls, transforms: Transforms, parameters: NDArray[np.float64]) -> _Source:
        stated = {name: Fraction(value) for name, value in transforms.named(parameters).items()}
        angle, right, down, larger = (stated.get(name, Fraction(0)) for name in AXES)
        return cls(transforms, *exact_cosine_sine(angle), right, down, 1 / (1 + larger))

    def value(self, plane: NDArray[np.float64], pixel: int) -> tuple[Fraction, Fraction]:
        """An interval around the value of a pixel, by its place in the order of rows."""
        height, width = plane.shape
        row, column = divmod(pixel, width)
        u = Fraction(2 * column - width + 1, 2) - self.right
        v = Fraction(2 * row - height + 1, 2) - self.down
        x = (u * self.cosine - v * self.sine) * self.factor + Fraction(width - 1, 2)
        y = (u * self.sine + v * self.cosine) * self.factor + Fraction(height - 1, 2)
        left, top = math.floor(x), math.floor(y)
        a, b = x - left, y - top
        corner = [[self._at(plane, top + i, left + j) for j in (0, 1)] for i in (0, 1)]
        steps = [corner[0][1] - corner[0][0], corner[1][0] - corner[0][0]]
        steps.append(corner[1][1] - corner[1][0] - corner[0][1] + corner[0][0])
        value = corner[0][0] + a * steps[0] + b * steps[1] + a * b * steps[2]
        off = (abs(u) + abs(v)) * self.factor * self.width
        if off <= min(a, b, 1 - a, 1 - b):
            slope = abs(steps[0]) + abs(steps[1]) + 2 * abs(steps[2])
        else:  # the true place may lie in another square, and nowhere does the value change faster than this
            slope = 4 * max(abs(self._at(plane, top + i, left + j)) for i in (-1, 0, 1, 2) for j in (-1, 0, 1, 2))
        return value - off * slope, value + off * slope

    @staticmethod
    def _at(plane: NDArray[np.float64], row: int, column: int) -> Fraction:
        inside = 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]
        return Fraction(float(plane[row, column])) if inside else Fraction(0)
