"""What transformed images lie between, as functions of the transform's parameters (rule 20).

A cell is a box of parameters. It is cut into parts, each with a middle m and half its size r. The value f of a pixel is
the image, interpolated, at a place that depends smoothly on the parameters; f itself is continuous and piecewise
smooth. Where D_j holds all slopes of f by parameter j within a part, for any M

    f(p) - M . (p - c)  lies within  f(m) - M . (m - c)  +-  sum_j r_j max |D_j - M_j|

so that the least and the largest of these over all parts are offsets of a plane below and of one above, both with
slopes M, which may be any numbers [Balunovic et al. 2019, section 4, has such planes from samples and Lipschitz
constants]. M = 0 gives the box. D_j are products: of the slopes of the interpolated image at all places that the part
reaches, and of those of the place by the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mipverify.proof.facts import SEAL, Scope, Sealed
from mipverify.specification.threats.transform import BORDER, Transforms
from mipverify.specification.threats.trigonometry import ERROR, cosine_sine

Floats = NDArray[np.float64]

# What is lost in the few dozen operations on one number, relative to the largest that enters: far above all of it.
RELATIVE = 1e-12
HALF_STEP = 2.0**-24  # of float32, relative: the float32 nearest to a value is no farther away
LARGEST_SHRINK = 0.5  # the scaling may not reach -1: at most, what is there is made half as large


@dataclass(frozen=True, eq=False)
class Enclosure(Sealed):
    """The fact that network inputs x of all parameters p of each of some cells (E) lie in a box and between planes,
    `|x - middle - slopes (p - center)| <= half`; so do the float32 nearest to them.

    transforms: whose parameters these are. low, high: cells (E, k). center: (E, k). lower, upper, middle, half: (E, n).
    slopes: (E, n, k). scope: of what is proven of these inputs.
    """

    transforms: Transforms
    low: Floats
    high: Floats
    center: Floats
    lower: Floats
    upper: Floats
    middle: Floats
    half: Floats
    slopes: Floats
    scope: Scope

    def __len__(self) -> int:
        return len(self.low)

    @property
    def radius(self) -> Floats:
        """How far parameters (E, k) are from the center, rounded up."""
        far = np.maximum(self.high - self.center, self.center - self.low)
        return far * (1 + 4 * np.finfo(np.float64).eps)


def enclose(transforms: Transforms, low: Floats, high: Floats, slopes: Floats, parts: Sequence[int]) -> Enclosure:
    """Planes around the inputs of cells low, high (E, k).

    slopes: (E, channels, pixels, k) of pixel values by parameters, evidence. parts: into how many parts a cell is cut
    along each parameter (k,). Raises ValueError for cells beyond what is covered: angles up to 180 degrees, and images
    made at most half as large.
    """
    low, high = (np.asarray(v, np.float64) for v in (low, high))
    if not (low <= high).all() or slopes.shape[-1] != len(transforms.names):
        raise ValueError("a cell lies between two ends, and slopes are by its parameters")
    if not np.isfinite(slopes).all():
        slopes = np.where(np.isfinite(slopes), slopes, 0.0)
    center = 0.5 * low + 0.5 * high
    grid = _Parts.of(low, high, parts)
    live = _live(transforms, low, high)
    own = _Places(transforms, grid, live)
    slopes = slopes[:, :, live]
    steps = np.moveaxis(grid.middle - center[:, None], -1, 0)  # (k, E, S)
    value, spread = own.value, own.spread(None)
    image = transforms.image.reshape(len(transforms.image), -1)
    least, most = (f(axis=1, initial=0.0)[:, None] for f in (image.min, image.max))
    box = np.maximum((value - spread).min(axis=1), least), np.minimum((value + spread).max(axis=1), most)
    tilted = value - sum(slopes[:, None, :, :, j] * step[:, :, None, None] for j, step in enumerate(steps))
    spread = own.spread(slopes)
    planes = (tilted - spread).min(axis=1), (tilted + spread).max(axis=1)
    # Steps are rounded like the ends of cells that they are made of.
    ends = np.abs(low) + np.abs(high)
    slack = RELATIVE * (own.largest + (np.abs(slopes) * ends[:, None, None]).sum(axis=-1)) + own.slack

    def spread_out(values: Floats) -> Floats:
        """Of all pixels, those that are always 0 among them."""
        found = np.zeros((len(low), *image.shape, *values.shape[3:]))
        found[:, :, live] = values
        return found

    sides = [spread_out(side) for side in (*box, *planes)]
    return _as_inputs(transforms, low, high, center, sides, spread_out(slopes), spread_out(slack), own.largest)


def _live(transforms: Transforms, low: Floats, high: Floats) -> NDArray[np.intp]:
    """The pixels that may be anything but 0 within cells low, high (E, k), by place in the order of rows.

    The place that is read is no farther from a pixel than |p| (|r - 1| + r |angle|) + r |t|, where r = 1 / (1 + s), and
    it reads pixels less than 1 away in either direction.
    """
    from scipy.ndimage import distance_transform_cdt

    angle, right, down, larger = (
        float(np.max(np.abs(end), initial=0.0)) for end in transforms.columns(np.maximum(np.abs(low), np.abs(high)))
    )
    used = (transforms.image != 0).any(axis=0)
    if not used.any():
        return np.zeros(0, np.intp)
    near = np.asarray(distance_transform_cdt(~used, metric="chessboard"), np.float64).reshape(-1)
    factor = 1 / (1 - min(larger, LARGEST_SHRINK))
    length = np.hypot(*transforms.centered)
    moved = length * (factor - 1 + factor * math.radians(angle)) + factor * math.hypot(right, down)
    return np.flatnonzero(near <= moved + 1 + 1e-6)


def _as_inputs(
    transforms: Transforms,
    low: Floats,
    high: Floats,
    center: Floats,
    sides: Sequence[Floats],
    slopes: Floats,
    slack: Floats,
    largest: float,
) -> Enclosure:
    """Ends of boxes and planes of pixels (E, channels, pixels), with what may be wrong with them, as those of network
    inputs: (x - mean) / std, flat, and the float32 nearest to these. largest: above all values of pixels."""
    count, order = len(low), transforms.pixels.entries.reshape(-1)

    def flat(values: Floats) -> Floats:
        found = np.empty((count, transforms.size, *values.shape[3:]))
        found[:, order] = values.reshape(count, transforms.size, *values.shape[3:])
        return found

    sides, tilt, slack = [flat(side) for side in sides], flat(slopes), flat(slack)
    size = np.full(transforms.size, largest)
    norm = transforms.normalization
    if norm is not None:
        mean, std = norm.mean, norm.std  # floats: off by half a step, which slopes and ends inherit
        sides = [(side - mean) / std for side in sides]
        tilt, slack = tilt / std[:, None], slack * (1 + RELATIVE) / std
        size = (size + np.abs(mean)) * (1 + RELATIVE) / std
    slack = slack + (HALF_STEP + RELATIVE) * (1 + RELATIVE) * size + np.finfo(np.float32).smallest_normal
    lower, upper, below, above = sides
    middle = 0.5 * (below + above)
    half = 0.5 * (above - below) * (1 + RELATIVE) + slack + RELATIVE * np.abs(middle)
    return Enclosure(
        transforms, low, high, center, lower - slack, upper + slack, middle, half, tilt, Scope(seal=SEAL), seal=SEAL
    )


@dataclass(frozen=True, eq=False)
class _Parts:
    """Parts of cells: middle (E, S, k), and half the size of a part (E, k), rounded up."""

    middle: Floats
    half: Floats

    @classmethod
    def of(cls, low: Floats, high: Floats, parts: Sequence[int]) -> _Parts:
        shares = np.meshgrid(*[(np.arange(m) + 0.5) / m for m in parts], indexing="ij")
        share = np.stack([s.reshape(-1) for s in shares], axis=-1)  # (S, k)
        width = (high - low) * (1 + 4 * np.finfo(np.float64).eps)
        middle = low[:, None] + share * width[:, None]
        # Middles are rounded, and parts are to cover the cell all the same.
        rounding = 4 * np.finfo(np.float64).eps * (np.abs(low) + np.abs(high) + width)
        return cls(middle, 0.5 * width / np.asarray(parts, np.float64) + rounding)


class _Places:
    """Where some pixels of parts of cells are read, and what is there: `value` (E, S, channels, pixels) at the middles.

    largest: above all values of pixels. slack: what values may be off by for the rounding of their places.
    """

    def __init__(self, transforms: Transforms, grid: _Parts, live: NDArray[np.intp]):
        self._names = transforms.names
        self._half = grid.half
        self.largest = float(np.abs(transforms.image).max(initial=0.0))
        angle, right, down, larger = transforms.columns(grid.middle)
        half_angle, half_right, half_down, half_larger = transforms.columns(grid.half)
        turn = math.pi / 180
        angle, half_angle = np.multiply(angle, turn), np.multiply(half_angle, turn * (1 + 1e-12))
        most = float(np.max(np.abs(angle), initial=0.0) + np.max(half_angle, initial=0.0))
        least = 1 + float(np.min(larger) - np.max(half_larger, initial=0.0))
        if not (most <= math.pi * (1 + 1e-9) and least >= 1 - LARGEST_SHRINK - 1e-9):
            raise ValueError("transforms beyond 180 degrees, or to less than half the size, are not enclosed")
        shape = grid.middle.shape[:2]

        def wide(values: Floats | float) -> Floats:
            """Of each part (E, S, 1)."""
            array = np.asarray(values, np.float64)
            array = array[:, None] if array.ndim == 1 else array
            return np.broadcast_to(array, shape)[:, :, None]

        cosine, sine = (wide(v) for v in cosine_sine(np.asarray(angle)))
        factor = 1 / (1 + wide(larger))
        largest_factor = 1 / (1 + wide(larger) - wide(half_larger)) * (1 + RELATIVE)
        da, dr, dd, ds = (wide(v) for v in (half_angle, half_right, half_down, half_larger))
        u, v = transforms.centered[0][live] - wide(right), transforms.centered[1][live] - wide(down)
        x, y = factor * (u * cosine - v * sine), factor * (u * sine + v * cosine)
        extent = largest_factor * (np.hypot(u, v) + dr + dd + 1)
        # What places are off by: cosine, sine and a few operations.
        off = extent * (4 * ERROR + RELATIVE)
        self.slack = 8 * self.largest * float(off.max(initial=0.0))
        # How far places are from the middle's, first roughly, then by slopes at the middle and how these may change.
        rough = extent * (da + largest_factor * ds) + largest_factor * (dr + dd)
        c, s = np.abs(cosine) + da, np.abs(sine) + da
        scale = largest_factor * ds
        far_x = (np.abs(y) + rough) * da + largest_factor * (c * dr + s * dd) + (np.abs(x) + rough) * scale + off
        far_y = (np.abs(x) + rough) * da + largest_factor * (s * dr + c * dd) + (np.abs(y) + rough) * scale + off
        change = largest_factor * (da + scale) + off
        # For each parameter the slopes of the place, and by how much they may differ within the part.
        self._place = {
            "rotation": ((-y * turn, far_y * turn), (x * turn, far_x * turn)),
            "right": ((-factor * cosine, change), (-factor * sine, change)),
            "down": ((factor * sine, change), (-factor * cosine, change)),
            "scaling": (
                (-factor * x, largest_factor * (far_x + (np.abs(x) + far_x) * scale)),
                (-factor * y, largest_factor * (far_y + (np.abs(y) + far_y) * scale)),
            ),
        }
        self.value, self._slopes = _read(transforms, x, y, far_x, far_y, self.largest)

    def spread(self, slopes: Floats | None) -> Floats:
        """By how much values less planes with these slopes (E, channels, pixels, k), or none, change within a part, at
        most: (E, S, channels, pixels)."""
        (gx, wx), (gy, wy) = self._slopes
        total: Floats | float = 0.0
        for j, name in enumerate(self._names):
            (px, dx), (py, dy) = ((m[:, :, None], w[:, :, None]) for m, w in self._place[name])
            middle = gx * px + gy * py
            if slopes is not None:
                middle = middle - slopes[:, None, :, :, j]
            beside = np.abs(gx) * dx + wx * (np.abs(px) + dx) + np.abs(gy) * dy + wy * (np.abs(py) + dy)
            total = total + self._half[:, None, None, None, j] * (np.abs(middle) + beside)
        return np.asarray(total * (1 + RELATIVE))


def _read(
    transforms: Transforms, x: Floats, y: Floats, far_x: Floats, far_y: Floats, largest: float
) -> tuple[Floats, tuple[tuple[Floats, Floats], tuple[Floats, Floats]]]:
    """The interpolated image at places x, y from the middle (E, S, pixels), and its slopes by x and y at all places as
    far as far_x, far_y: middles and half ranges (E, S, channels, pixels)."""
    image = transforms.padded
    height, width = transforms.image.shape[1:]
    stride = image.shape[2]
    x, y = x + ((width - 1) / 2 + BORDER), y + ((height - 1) / 2 + BORDER)
    flat = image.reshape(len(image), -1)
    by_x = np.pad(np.diff(image, axis=2), ((0, 0), (0, 0), (0, 1))).reshape(len(image), -1)
    by_y = np.pad(np.diff(image, axis=1), ((0, 0), (0, 1), (0, 0))).reshape(len(image), -1)
    twist = np.pad(np.diff(np.diff(image, axis=1), axis=2), ((0, 0), (0, 1), (0, 1))).reshape(len(image), -1)

    def square(values: Floats, most: int) -> NDArray[np.intp]:
        """The square that a place is in; all beyond the border are alike."""
        return np.asarray(np.clip(np.floor(values), 0, most + 2), np.intp)

    left, right = square(x - far_x, width), square(x + far_x, width)
    top, bottom = square(y - far_y, height), square(y + far_y, height)
    column, row = square(x, width), square(y, height)
    a, b = np.clip(x - column, 0, 1)[:, :, None], np.clip(y - row, 0, 1)[:, :, None]
    at = row * stride + column

    def taken(values: Floats, index: NDArray[np.intp]) -> Floats:
        return np.moveaxis(values[:, index], 0, 2)

    value = taken(flat, at) + a * taken(by_x, at) + b * taken(by_y, at) + a * b * taken(twist, at)
    ends: tuple[list[Floats], list[Floats]] = ([], [])
    for i in (top, bottom):
        share_y = [np.clip(y + sign * far_y - i, 0, 1)[:, :, None] for sign in (-1, 1)]
        for j in (left, right):
            share_x = [np.clip(x + sign * far_x - j, 0, 1)[:, :, None] for sign in (-1, 1)]
            index = i * stride + j
            gx, gy, gxy = taken(by_x, index), taken(by_y, index), taken(twist, index)
            ends[0].extend(gx + share * gxy for share in share_y)
            ends[1].extend(gy + share * gxy for share in share_x)
    wide = ((right - left > 1) | (bottom - top > 1))[:, :, None]  # squares between were not looked at
    found = []
    for several in ends:
        low, high = np.minimum.reduce(several), np.maximum.reduce(several)
        low, high = np.where(wide, -2 * largest, low), np.where(wide, 2 * largest, high)
        found.append((0.5 * (low + high), 0.5 * (high - low) + RELATIVE * largest))
    return value, (found[0], found[1])
