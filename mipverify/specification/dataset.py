"""Labelled images from .npz, IDX and CSV files, as the floats that a network is asked about."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipverify.errors import InputError
from mipverify.specification.csv_file import read_csv
from mipverify.specification.dataset_files import read_idx, read_npz
from mipverify.specification.exact import canonical, nearest_float
from mipverify.specification.layout import Arrangement, arrange
from mipverify.specification.preprocessing import GREY, Preprocessing

_LARGEST_INTEGER = 2**53  # up to which a float64 holds every whole number


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and their labels.

    `stored`: the images as the file holds them, (N, ...), integers or floats. `labels`: int64 (N,). `name`: file name
    without folder. `sha256`: of the file that holds the images, as it was read; "" where there is none. Use
    `image(index)` for one and `images` for all; only what is asked for is converted.
    """

    stored: NDArray[Any]
    labels: NDArray[np.int64]
    name: str
    path: str
    sha256: str = ""
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    _arrangement: Arrangement | None = None

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image as `image` returns it."""
        return self.stored.shape[1:] if self._arrangement is None else self._arrangement.shape

    @cached_property
    def images(self) -> NDArray[Any]:
        """All images as floats, (N, *image_shape): what is stored, times the scale."""
        return self.batch(0, len(self))

    @cached_property
    def scale(self) -> Fraction:
        """What stored values are multiplied by: as asked for, else 1/255 for uint8 pixels and 1 for all others.

        Raises:
            InputError: uint8 pixels whose domain is neither that of grey levels nor within [0, 1].
        """
        if self.stored.dtype != np.uint8 or self.preprocessing.scale is not None:
            return Fraction(1) if self.preprocessing.scale is None else self.preprocessing.scale
        return self.preprocessing.scale_of_pixels(self.path)

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
        pixels = self._scaled(self.stored[start:stop])
        finite = np.isfinite(pixels).reshape(len(pixels), -1).all(axis=1)
        for i in np.flatnonzero(~finite).tolist():
            raise InputError(f"{self.path}: image {start + i} has a pixel that is not finite")
        if self.stored.dtype.kind in "iu" and self.stored.dtype != np.uint8:
            self._require_domain(pixels, start)
        if self._arrangement is None:
            return np.ascontiguousarray(pixels)
        return self._arrangement.apply(pixels)

    def _scaled(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Whole numbers become the float nearest to their product with the scale, floats keep their type."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by who asks
            if stored.dtype == np.uint8:
                table = np.array([nearest_float(level * self.scale) for level in range(256)])
                return table.astype(np.float32)[stored]
            if self.scale == 1:
                return stored if stored.dtype.kind == "f" else stored.astype(np.float64)
            factor, divisor = (nearest_float(Fraction(n)) for n in self.scale.as_integer_ratio())
            if math.isinf(factor) or math.isinf(divisor):
                factor, divisor = nearest_float(self.scale), 1.0
            product = stored.astype(np.float64) * factor / divisor
            return product.astype(stored.dtype if stored.dtype.kind == "f" else np.float32)

    def _require_domain(self, pixels: NDArray[Any], start: int) -> None:
        domain = self.preprocessing.domain
        if domain is None:
            return
        low, high = (float(limit) for limit in domain)
        for i in np.flatnonzero(((pixels < low) | (pixels > high)).reshape(len(pixels), -1).any(axis=1)).tolist():
            flat = pixels[i].reshape(-1)
            at = int(np.flatnonzero((flat < low) | (flat > high))[0])
            raise InputError(
                f"{self.path}: image {start + i} holds {flat[at]:g}, outside of the domain {low:g},{high:g}: whole "
                f"numbers that are not stored as uint8 are taken as they are; state their domain, or a scale ({GREY} "
                "makes grey levels 0 to 1)"
            )

    def fit_to(self, input_shape: tuple[int, ...]) -> Dataset:
        """The same data set with images of a network's input shape.

        Axes of length 1 may differ, and flat images or inputs are reshaped in row-major order; images with channels
        last (32, 32, 3) become channels first when the network wants (1, 3, 32, 32), and the other way round. What
        the shapes do not tell, `layout` does.

        Raises:
            InputError: names both shapes when they cannot be matched.
        """
        own, wanted, layout = self.stored.shape[1:], tuple(input_shape), self.preprocessing.layout
        found = arrange(own, wanted, layout)
        if found is None:
            batch = len(wanted) > 1 and wanted[0] > 1 and arrange(own, (1, *wanted[1:]), layout) is not None
            hint = f", a batch of {wanted[0]}: export it for one image, or with an open batch axis" if batch else ""
            raise InputError(f"{self.path}: images have shape {own}, the network takes {wanted}{hint}")
        return replace(self, _arrangement=found)

    @property
    def mean(self) -> Any:
        """The mean of the preprocessing for images of `image_shape`: a number, or one for each entry (exact)."""
        return self._spread("mean")

    @property
    def std(self) -> Any:
        """The standard deviation, likewise."""
        return self._spread("std")

    def _spread(self, what: str) -> Any:
        given: tuple[Fraction, ...] = getattr(self.preprocessing, what)
        size = int(np.prod(self.image_shape))
        values = np.empty(len(given), object)
        values[:] = given
        if len(given) == 1:
            return given[0]
        if len(given) == size:
            return values.reshape(self.image_shape)
        arrangement = self._arrangement or Arrangement(self.image_shape, self.image_shape)
        channels = arrangement.channel_of(len(given))
        if channels is None:
            raise InputError(
                f"{self.path}: {what} holds {len(given)} numbers, and it is open to which axis of images of shape "
                f"{self.stored.shape[1:]} they belong: state the layout, nchw or nhwc"
            )
        return values[channels]

    def record(self) -> dict[str, Any]:
        """What was done to the stored values, for a report: domain, scale, mean, std and layout as text."""
        return {**self.preprocessing.record(), "scale": canonical(self.scale)}

    def described(self) -> str:
        """The same in words, for people."""
        return self.preprocessing.described(self.scale, "uint8 pixels" if self.stored.dtype == np.uint8 else "values")

    def _require(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise InputError(f"{self.path}: there is no image {index}: {len(self)} images, counted from 0")

    def __repr__(self) -> str:
        return f"Dataset({self.name}: {len(self)} images {self.image_shape} of {self.stored.dtype})"


def load_dataset(path: str | PathLike[str], preprocessing: Preprocessing | None = None, **more: Any) -> Dataset:
    """Read labelled images.

    `.npz`: arrays `images` (N, ...) and `labels` (N,). IDX: `…-images-idx3-ubyte[.gz]` with `…-labels-idx1-ubyte[.gz]`
    beside it. `.csv[.gz]`: one image a line, the label first. uint8 pixels are divided by 255 (unless the domain is
    that of grey levels), all other numbers are taken as they are.

    preprocessing: what lies between the file and the network, or its fields as keywords: `load_dataset(path,
    domain=(0, 255), mean=[0.49, 0.48, 0.44], std=[0.2, 0.2, 0.2], layout="nhwc")`.

    Raises:
        InputError: the file is missing, damaged, of another kind, or its images and labels do not belong together.
    """
    given = Preprocessing.of(**more) if preprocessing is None else preprocessing
    if not isinstance(path, str | PathLike):
        raise InputError(f"the path of a data file is needed, not {type(path).__name__}")
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
    if images.dtype.kind not in "iuf" or images.dtype.itemsize > 8:
        raise InputError(f"{path}: images must be whole numbers or floats, not {images.dtype}")
    if images.dtype.kind in "iu" and images.dtype.itemsize > 4 and _beyond(images):
        raise InputError(f"{path}: images hold whole numbers beyond 2^53, which no float64 tells apart")
    dataset = Dataset(images, _integers(labels, len(images), str(path)), name, str(path), sha256, given)
    dataset.scale  # noqa: B018 - refuses a domain that leaves open what pixels become
    return dataset


def _beyond(images: NDArray[Any]) -> bool:
    return int(images.max()) > _LARGEST_INTEGER or int(images.min()) < -_LARGEST_INTEGER


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
