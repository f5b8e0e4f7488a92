"""Which axis of stored images holds the channels, and how the images become what a network takes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipverify.errors import InputError
from mipverify.specification.normalization import channel_axis

LAYOUTS = ("nchw", "nhwc")
CHANNELS = (1, 3, 4)  # of images: grey, colour, colour with alpha


@dataclass(frozen=True)
class Arrangement:
    """Stored images (N, ...) are viewed as (N, *view), their axes permuted, and reshaped to (N, *shape).

    axes: a permutation of the axes of one image, or None. channels: the axis of the view that holds them, or None
    where the file leaves that open.
    """

    view: tuple[int, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None = None
    channels: int | None = None

    def apply(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Images as the network takes them, (N, *shape)."""
        images = stored.reshape(len(stored), *self.view)
        if self.axes is not None:
            images = images.transpose(0, *(axis + 1 for axis in self.axes))
        return np.ascontiguousarray(images).reshape(len(stored), *self.shape)

    def channel_of(self, count: int) -> NDArray[np.intp] | None:
        """For each entry of `shape` which of `count` channels it belongs to, or None where that is open."""
        axis = channel_axis(count, self.view) if self.channels is None else self.channels
        if axis is None:  # flat images: the network's own shape may tell
            axis = channel_axis(count, self.shape)
            if axis is None or self.axes is not None:
                return None
            return _along(axis, self.shape)
        if self.view[axis] != count:
            return None
        return self.apply(_along(axis, self.view)[None])[0]


def _along(axis: int, shape: tuple[int, ...]) -> NDArray[np.intp]:
    return np.broadcast_to(np.arange(shape[axis]).reshape(-1, *[1] * (len(shape) - axis - 1)), shape)


def arrange(stored: tuple[int, ...], wanted: tuple[int, ...], layout: str | None) -> Arrangement | None:
    """How images of shape `stored` become inputs of shape `wanted`, or None if they cannot.

    layout: how the file holds them, nchw or nhwc. Without it, images of the network's shape (axes of length 1 aside)
    and flat ones are taken in the order of the file, and others if exactly one move of the channels makes them fit.

    Raises:
        InputError: the layout leaves open what the network takes, or is none.
    """
    if layout is None:
        return _guessed(stored, wanted)
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout!r} is not one of {', '.join(LAYOUTS)}")
    if prod(stored) != prod(wanted):
        return None
    view = _image_axes(stored, wanted, layout)
    if view is None:
        return None
    channels = 0 if layout == "nchw" else 2
    if _squeezed(wanted) == _squeezed((prod(wanted),)):
        return Arrangement(view, wanted, None, channels)  # a flat input takes them in the order of the file
    moves = {"nchw": (0, 1, 2), "nhwc": (1, 2, 0)} if layout == "nchw" else {"nchw": (2, 0, 1), "nhwc": (0, 1, 2)}
    fitting = {
        name: axes for name, axes in moves.items() if _squeezed(tuple(view[a] for a in axes)) == _squeezed(wanted)
    }
    if len(fitting) > 1 and view[channels] > 1:
        raise InputError(f"the network takes {wanted}, which may be nchw or nhwc: permute the images yourself")
    if not fitting:
        return None
    return Arrangement(view, wanted, next(iter(fitting.values())), channels)


def _guessed(stored: tuple[int, ...], wanted: tuple[int, ...]) -> Arrangement | None:
    mine, target = _squeezed(stored), _squeezed(wanted)
    if mine == target or (prod(mine) == prod(target) and min(len(mine), len(target)) == 1):
        return Arrangement(stored, wanted)
    if len(mine) == len(target) == 3:
        for axes, channels in (((2, 0, 1), 2), ((1, 2, 0), 0)):
            if tuple(mine[a] for a in axes) == target:
                return Arrangement(mine, wanted, axes, channels)
    return None


def _image_axes(stored: tuple[int, ...], wanted: tuple[int, ...], layout: str) -> tuple[int, ...] | None:
    """Stored images as three axes in the order of `layout`; flat ones take their sizes from the network's input.

    Which of its outer axes holds the channels is known only where one of them has a length of CHANNELS and the other
    has not. Raises InputError elsewhere.
    """
    if len(stored) == 3:
        return stored
    if len(_squeezed(stored)) == 3:
        return _squeezed(stored)
    if len(stored) == 2:  # one channel
        return (1, *stored) if layout == "nchw" else (*stored, 1)
    image = wanted[1:] if len(wanted) == 4 else wanted
    if len(_squeezed(stored)) != 1 or len(image) != 3:
        return None
    first, middle, last = image
    known = [size in CHANNELS and (size == 1 or size < middle) for size in (first, last)]
    if (first in CHANNELS) == (last in CHANNELS) or not any(known):
        raise InputError(f"the network takes {wanted}, which may be nchw or nhwc: permute the images yourself")
    channels, *sizes = image if known[0] else (last, first, middle)
    return (channels, *sizes) if layout == "nchw" else (*sizes, channels)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1) or (1,)
