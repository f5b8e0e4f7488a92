"""Checks of what is concluded of transformed images, with another formula of them: sums of hats over all pixels."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from mipverify.presolve.planes import fitted_slopes

from mipverify.network import Network
from mipverify.proof.backward import propagate_backward
from mipverify.proof.cells import Cells
from mipverify.proof.enclosure import Enclosure, enclose
from mipverify.proof.images import over_images
from mipverify.proof.interval import interval, interval_of_images
from mipverify.proof.rows import unit_rows
from mipverify.specification.normalization import Normalization
from mipverify.specification.threats.pixels import Pixels
from mipverify.specification.threats.transform import Transforms
from tests.presolve.nets import convolutional, dense
from tests.proof.exact import exact
from tests.proof.float32 import cancelling_layers, evaluations, in_float32, require_values

RADII = {"rotation": 60, "right": 2, "down": 2, "scaling": Fraction(3, 10)}


def seen(image: np.ndarray, named: dict[str, float]) -> np.ndarray:
    """A transformed image (channels, height, width): each pixel is a sum over all pixels of the image, most times 0."""
    height, width = image.shape[1:]
    angle, factor = math.radians(named.get("rotation", 0.0)), 1 + named.get("scaling", 0.0)
    found = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            u = (column - (width - 1) / 2 - named.get("right", 0.0)) / factor
            v = (row - (height - 1) / 2 - named.get("down", 0.0)) / factor
            x = u * math.cos(angle) - v * math.sin(angle) + (width - 1) / 2
            y = u * math.sin(angle) + v * math.cos(angle) + (height - 1) / 2
            hats = np.maximum(0, 1 - np.abs(np.arange(height)[:, None] - y)) * np.maximum(
                0, 1 - np.abs(np.arange(width)[None] - x)
            )
            found[:, row, column] = (image * hats).sum(axis=(1, 2))
    return found


def random_transforms(rng: np.random.Generator, shape: tuple[int, ...], channels: int | None) -> Transforms:
    """Of an image of this shape, which may be mostly empty, with some parameters."""
    pixels = Pixels(shape, channels)
    flat = (rng.normal(size=math.prod(shape)) * (rng.random(math.prod(shape)) < rng.choice([0.2, 1.0]))).astype("f4")
    names = [name for name in RADII if rng.random() < 0.6] or ["rotation"]
    share = Fraction(int(rng.integers(1, 5)), 4)
    normalization = None
    if rng.random() < 0.5:
        mean, std = rng.normal(size=3).round(2).tolist(), rng.uniform(0.1, 2, 3).round(2).tolist()
        normalization = Normalization.of(mean[0], std[0], shape)
    return Transforms(
        pixels.planes(flat.astype(float)), pixels, {name: RADII[name] * share for name in names}, normalization
    )


def random_cells(rng: np.random.Generator, transforms: Transforms, count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Cells of all sizes, single parameters among them."""
    radius = transforms.inward
    one, two = rng.uniform(-1, 1, (2, count, len(radius))) * radius
    size = rng.choice([0.0, 0.01, 0.2, 1.0], (count, 1))
    two = one + size * (two - one)
    return np.minimum(one, two), np.maximum(one, two)


def random_enclosure(rng: np.random.Generator, transforms: Transforms) -> Enclosure:
    """Planes with fitted slopes, or with any."""
    low, high = random_cells(rng, transforms)
    parts = rng.integers(1, 4, len(transforms.names)).tolist()
    slopes = fitted_slopes(transforms, low, high, parts)
    if rng.random() < 0.3:
        slopes = rng.normal(size=slopes.shape)
    return enclose(transforms, low, high, slopes, parts)


def members(
    rng: np.random.Generator, images: Enclosure, cell: int, count: int = 6
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Parameters of a cell, its corners among them, and the float32 inputs that they make, by the other formula."""
    low, high, transforms = images.low[cell], images.high[cell], images.transforms
    share = rng.random((count, len(low)))
    share[::2] = np.round(share[::2])
    found = []
    for parameters in low + share * (high - low):
        flat = np.empty(transforms.size)
        parameters = np.clip(parameters, low, high)
        flat[transforms.pixels.entries] = seen(transforms.image, transforms.named(parameters))
        norm = transforms.normalization
        x = flat if norm is None else (flat - norm.mean) / norm.std
        found.append((parameters, x.astype(np.float32)))
    return found


def check_enclosure(rng: np.random.Generator) -> None:
    """Inputs of a cell lie in its box and between its planes."""
    shape, channels = [((6, 7), None), ((2, 5, 6), 0), ((5, 5, 3), 2)][rng.integers(3)]
    _require_enclosed(rng, random_enclosure(rng, random_transforms(rng, shape, channels)))
    spike = np.zeros((1, 7, 9))  # flat at both ends of where the middle column reads, and not between
    spike[:, :, 4] = rng.normal()
    wide = Transforms(spike, Pixels((7, 9), None), {"right": Fraction(2)})
    _require_enclosed(rng, enclose(wide, np.array([[-2.0]]), np.array([[2.0]]), np.zeros((1, 1, 63, 1)), [1]))


def _require_enclosed(rng: np.random.Generator, images: Enclosure) -> None:
    for cell in range(len(images)):
        for parameters, x in members(rng, images, cell):
            exactly = [Fraction(float(v)) for v in x]
            steps = [Fraction(p) - Fraction(c) for p, c in zip(parameters.tolist(), images.center[cell], strict=True)]
            for i, value in enumerate(exactly):
                assert Fraction(images.lower[cell, i]) <= value <= Fraction(images.upper[cell, i])
                tilt = sum((Fraction(s) * d for s, d in zip(images.slopes[cell, i].tolist(), steps, strict=True)), 0)
                assert abs(value - Fraction(images.middle[cell, i]) - tilt) <= Fraction(images.half[cell, i])


def _network(rng: np.random.Generator) -> tuple[Network, tuple[int, ...], int | None]:
    if rng.random() < 0.5:
        return convolutional(rng, 5), (2, 5, 6), 0
    return dense(rng, (25, 12, 12, 4), skip=True), (5, 5), None


def check_images(rng: np.random.Generator) -> None:
    """Values of a network at inputs of a cell lie within its bounds, and margins above their rows'."""
    network, shape, channels = _network(rng)
    images = random_enclosure(rng, random_transforms(rng, shape, channels))
    bounds = interval_of_images(network, images)
    size, count = network.output_size, len(images)
    entries, units = np.divmod(np.arange(size * count), size)
    thin = bounds.outward(rng.choice([np.float32, np.float64]))
    rows = over_images(propagate_backward(thin, unit_rows(network, network.output, units, entries, thin.like)), images)
    for cell in range(count):
        for _, x in members(rng, images, cell, 3):
            values = exact(network, [Fraction(float(v)) for v in x])
            for node in (*network.preactivations, network.output):
                low, high = (side[node][cell].reshape(-1) for side in (bounds.lower, bounds.upper))
                for value, a, b in zip(values[node], low.tolist(), high.tolist(), strict=True):
                    assert Fraction(a) <= value <= Fraction(b)
            for value, low in zip(values[network.output], rows.lower[entries == cell].tolist(), strict=True):
                assert low == -np.inf or Fraction(float(low)) <= value


def check_images_in_float32(rng: np.random.Generator) -> None:
    """Bounds over the inputs of a cell hold for every float32 evaluation, if that is what the network is about."""
    network, x = cancelling_layers(rng)
    network, pixels = in_float32(network), Pixels((2, x.size // 2), None)
    transforms = Transforms(pixels.planes(x.astype(np.float64)), pixels, {"right": Fraction(1)})
    images = enclose(transforms, np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1, x.size, 1)), [1])
    require_values(interval_of_images(network, images), evaluations(network, np.repeat(x, 20, axis=0), rng))


def check_cells(rng: np.random.Generator) -> None:
    """What the ledger says of all transforms is true at some, and it is not fooled."""
    network, shape, channels = _network(rng)
    transforms = random_transforms(rng, shape, channels)
    cells = Cells(transforms, network)
    for _ in range(3):
        cells.halve(int(rng.choice(cells.open)), int(rng.integers(len(transforms.names))))
    ends = [cells.cell(number) for number in cells.open]
    low, high = (np.stack([pair[side] for pair in ends]) for side in (0, 1))
    parts = [2] * len(transforms.names)
    images = enclose(transforms, low, high, fitted_slopes(transforms, low, high, parts), parts)
    bounds, numbers = interval_of_images(network, images), cells.open
    with pytest.raises(ValueError, match="another cell"):
        cells.close(numbers[0], images, bounds, 1)
    with pytest.raises(ValueError, match="something else"):  # bounds over boxes of their own
        cells.close(numbers[0], images, interval(network, bounds.lower[0], bounds.upper[0]), 0)
    for entry, number in enumerate(numbers):
        assert (cells.lower == -np.inf).all()
        cells.close(number, images, bounds, entry)
    with pytest.raises(KeyError):
        cells.close(numbers[0], images, bounds, 0)
    whole = enclose(
        transforms,
        -transforms.inward[None],
        transforms.inward[None],
        np.zeros((1, *transforms.image.reshape(len(transforms.image), -1).shape, len(parts))),
        parts,
    )
    for _, x in members(rng, whole, 0, 8):
        for value, lower in zip(
            exact(network, [Fraction(float(v)) for v in x])[network.output], cells.lower, strict=True
        ):
            assert Fraction(float(lower)) <= value


CHECKS = {
    "enclosure": check_enclosure,
    "images": check_images,
    "images in float32": check_images_in_float32,
    "cells": check_cells,
}
