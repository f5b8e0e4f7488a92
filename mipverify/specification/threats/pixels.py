"""Inputs as images: which entry is which pixel of which channel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipverify.errors import InputError

CHANNELS = (1, 3, 4)  # grey, colour, colour with alpha


@dataclass(frozen=True)
class Pixels:
    """The entries of a flat input (n,) as pixels: `shape` with its channels on the axis `channels`, or without any.

    shape: (height, width), or three axes.
    """

    shape: tuple[int, ...]
    channels: int | None

    @classmethod
    def of(cls, shape: tuple[int, ...], stored: tuple[int, ...] = ()) -> Pixels:
        """The pixels of inputs of a network's input shape, or else of the shape in which a file stores them.

        A flat input of a square number of entries is a grey square image. Raises InputError where inputs are no images.
        """
        for each in (shape, stored):
            kept = tuple(size for size in each[:-3] if size != 1) + tuple(each[-3:])
            if len(kept) == 3 and kept[0] in CHANNELS and min(kept[1:]) > 1:
                return cls(kept, 0)
            if len(kept) == 3 and kept[2] in CHANNELS and min(kept[:2]) > 1:
                return cls(kept, 2)
            if len(kept) == 2 and min(kept) > 1:
                return cls(kept, None)
        side = math.isqrt(math.prod(shape))
        if side > 1 and side * side == math.prod(shape) and sum(size != 1 for size in shape) == 1:
            return cls((side, side), None)
        raise InputError(f"inputs of shape {tuple(shape)} are no images with rows and columns")

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.shape[1 if self.channels == 0 else 0]

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.shape[2 if self.channels == 0 else 1]

    @cached_property
    def entries(self) -> NDArray[np.intp]:
        """Which entry (channels, height, width) of a flat input each pixel of each channel is."""
        index = np.arange(math.prod(self.shape)).reshape(self.shape)
        if self.channels is None:
            return index[None]
        return np.moveaxis(index, self.channels, 0)

    def planes(self, flat: NDArray[Any]) -> NDArray[Any]:
        """The image (channels, height, width) of a flat input (n,)."""
        return np.asarray(flat).reshape(-1)[self.entries]
