"""Labelled images from .npz, IDX and CSV files, as the floats that a network is asked about."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipverify.errors import InputError
from mipverify.specification.dataset_files import read_csv, read_idx, read_npz


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and their labels.

    `stored`: the images as the file holds them, (N, ...), uint8 or float. `labels`: int64 (N,). `name`: file name
    without folder. `sha256`: of the file that holds the images, as it was read; "" where there is none. Use
    `image(index)` for one and `images` for all; only what is asked for is converted.
    """

    stored: NDArray[Any]
    labels: NDArray[np.int64]
    name: str
    path: str
    sha256: str = ""
    _arranged: tuple[int, ...] | None = field(default=None)
    _channels_last: bool = field(default=False)

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image as `image` returns it."""
        return self.stored.shape[1:] if self._arranged is None else self._arranged

    @cached_property
    def images(self) -> NDArray[Any]:
        """All images as floats, (N, *image_shape); uint8 pixels k become the float32 nearest to k/255."""
        return self.batch(0, len(self))

    def image(self, index: int) -> NDArray[Any]:
        """One image as floats, shape `image_shape`.

        Raises:
            InputError: there is no such index (they count from 0), or a pixel is not finite.
        """
        self._require(index)
        return self.batch(index, index + 1)[0]

    def label(self, index: int) -> int:
        """The label of one image; raises `InputError` like `image`."""
        self._require(index)
        return int(self.labels[index])

    def batch(self, start: int, stop: int) -> NDArray[Any]:
        """Images start to stop - 1 as floats, (stop - start, *image_shape); finite or `InputError`."""
        chosen = self.stored[start:stop]
        if chosen.dtype == np.uint8:
            pixels = chosen.astype(np.float32) / np.float32(255)
        else:
            pixels = chosen
            finite = np.isfinite(pixels).reshape(len(pixels), -1).all(axis=1)
            for i in np.flatnonzero(~finite).tolist():
                raise InputError(f"{self.path}: image {start + i} has a pixel that is not finite")
        if self._channels_last:
            pixels = np.moveaxis(pixels, -1, 1)
        return np.ascontiguousarray(pixels).reshape(-1, *self.image_shape)

    def fit_to(self, input_shape: tuple[int, ...]) -> Dataset:
        """The same data set with images of a network's input shape.

        Axes of length 1 may differ, and flat images or inputs are reshaped in row-major order; images with channels
        last (32, 32, 3) become channels first when the network wants (1, 3, 32, 32).

        Raises:
            InputError: names both shapes when they cannot be matched.
        """
        mine, wanted = _squeezed(self.stored.shape[1:]), _squeezed(input_shape)
        if mine == wanted or (prod(mine) == prod(wanted) and min(len(mine), len(wanted)) == 1):
            return self._with(tuple(input_shape), channels_last=False)
        if len(mine) == 3 and len(wanted) == 3 and (mine[2], mine[0], mine[1]) == wanted:
            return self._with(tuple(input_shape), channels_last=True)
        shapes = f"{self.stored.shape[1:]}, the network takes {tuple(input_shape)}"
        raise InputError(f"{self.path}: images have shape {shapes}")

    def _with(self, shape: tuple[int, ...], *, channels_last: bool) -> Dataset:
        return replace(self, _arranged=shape, _channels_last=channels_last)

    def _require(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise InputError(f"{self.path}: there is no image {index}: {len(self)} images, counted from 0")

    def __repr__(self) -> str:
        return f"Dataset({self.name}: {len(self)} images {self.image_shape} of {self.stored.dtype})"


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1) or (1,)


def load_dataset(path: str | PathLike[str]) -> Dataset:
    """Read labelled images.

    `.npz`: arrays `images` (N, ...) and `labels` (N,). IDX: `…-images-idx3-ubyte[.gz]` with `…-labels-idx1-ubyte[.gz]`
    beside it. `.csv[.gz]`: one image a line, the label first; whole numbers from 0 to 255, if any exceeds 1, are
    taken as uint8 pixels. uint8 pixels are divided by 255, floats are taken as they are.

    Raises:
        InputError: the file is missing, damaged, of another kind, or its images and labels do not belong together.
    """
    place = Path(path)
    name = place.name.removesuffix(".gz")
    if name.endswith(".npz"):
        images, labels, sha256 = read_npz(place)
    elif "idx" in name and "ubyte" in name:
        images, labels, sha256 = read_idx(place)
    elif name.endswith(".csv"):
        images, labels, sha256 = read_csv(place)
    else:
        raise InputError(f"{path}: data must be .npz, IDX (-images-idx3-ubyte[.gz]) or .csv[.gz]")
    if images.ndim < 2 or images.size == 0:
        raise InputError(f"{path}: images must have shape (N, ...) with N at least 1, not {images.shape}")
    if images.dtype != np.uint8 and images.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(f"{path}: images must be uint8 or floats, not {images.dtype}")
    return Dataset(images, _integers(labels, len(images), str(path)), name, str(path), sha256)


def _integers(labels: NDArray[Any], count: int, path: str) -> NDArray[np.int64]:
    if labels.ndim == 2 and 1 in labels.shape:
        labels = labels.reshape(-1)
    if labels.shape != (count,):
        raise InputError(f"{path}: {count} images, but labels of shape {labels.shape}")
    if not (np.issubdtype(labels.dtype, np.integer) or np.issubdtype(labels.dtype, np.floating)):
        raise InputError(f"{path}: labels must be whole numbers, not {labels.dtype}")
    with np.errstate(invalid="ignore"):
        whole = labels.astype(np.int64)
    for i in np.flatnonzero((whole != labels) | (whole < 0)).tolist():
        raise InputError(f"{path}: label {i} is {labels[i]}, not a whole number from 0")
    return whole
