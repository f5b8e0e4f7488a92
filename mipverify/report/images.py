"""Inputs as pictures: which inputs are images, and PNG files without a library for them."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A flat input of at least so many values in [0, 1], a square number of them, is shown as a square image.
SMALLEST_FLAT_IMAGE = 256

# Ends of the signed scale, blue for less and red for more, and what stands for no change.
LESS, NEUTRAL, MORE = np.array([33, 86, 166]), np.array([244, 241, 235]), np.array([190, 52, 38])


@dataclass(frozen=True)
class Layout:
    """How a flat input becomes an image: its shape, and which axis holds the colours."""

    shape: tuple[int, ...]
    channels: int
    channels_first: bool

    def pixels(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """(height, width, channels) of a flat input."""
        array = np.asarray(values, dtype=np.float64).reshape(self.shape)
        if self.channels_first:
            return np.moveaxis(array, 0, -1)
        return array


def image_layout(images: NDArray[Any], stored_shape: tuple[int, ...]) -> Layout | None:
    """The layout of the inputs, from their shape or else that in the data file; None if they are not images."""
    for shape in (images.shape[1:], stored_shape):
        kept = tuple(shape)
        while len(kept) > 3 and kept[0] == 1:
            kept = kept[1:]
        if len(kept) == 3 and kept[0] in (1, 3) and min(kept[1:]) > 1:
            return Layout(kept, kept[0], channels_first=True)
        if len(kept) == 3 and kept[2] in (1, 3) and min(kept[:2]) > 1:
            return Layout(kept, kept[2], channels_first=False)
        if len(kept) == 2 and min(kept) > 1:
            return Layout((*kept, 1), 1, channels_first=False)
    size = math.prod(images.shape[1:])
    side = math.isqrt(size)
    if size >= SMALLEST_FLAT_IMAGE and side * side == size and len(images):
        sample = images[:64]
        if float(sample.min()) >= 0.0 and float(sample.max()) <= 1.0:
            return Layout((side, side, 1), 1, channels_first=False)
    return None


def picture(values: NDArray[Any], layout: Layout, low: float = 0.0, high: float = 1.0) -> str:
    """A data URI of the image; `low` is black and `high` is white."""
    scaled = (layout.pixels(values) - low) / ((high - low) or 1.0)
    return _uri(np.rint(np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8))


def signed_picture(change: NDArray[Any], layout: Layout) -> str:
    """A data URI of a signed change, scaled to its largest magnitude; a colour image keeps its channels apart."""
    pixels = layout.pixels(change)
    scaled = pixels / (float(np.abs(pixels).max()) or 1.0)
    if layout.channels == 3:
        return _uri(np.rint(127.5 + 127.5 * scaled).astype(np.uint8))
    toward = np.where(scaled < 0, LESS, MORE)
    return _uri(np.rint(NEUTRAL + np.abs(scaled) * (toward - NEUTRAL)).astype(np.uint8))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of (height, width, 1 or 3) bytes."""
    height, width, channels = pixels.shape
    colour_type = {1: 0, 3: 2}[channels]
    rows = np.zeros((height, 1 + width * channels), dtype=np.uint8)  # each row begins with its filter, 0 is none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _uri(pixels: NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")
