"""Slopes of planes around the pixels of transformed images: evidence for the rule that makes planes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mipverify.specification.threats.transform import Transforms

Floats = NDArray[np.float64]


def fitted_slopes(transforms: Transforms, low: Floats, high: Floats, parts: Sequence[int]) -> Floats:
    """Slopes (E, channels, pixels, k) of pixels by the parameters of cells low, high (E, k): least squares over a grid.

    parts: points along each parameter (k,); of one that has a single part, both quarters.
    """
    points = [max(2, m) for m in parts]
    shares = np.stack([s.reshape(-1) for s in np.meshgrid(*[(np.arange(m) + 0.5) / m for m in points], indexing="ij")])
    width = high - low
    at = low[:, None] + shares.T[None] * width[:, None]  # (E, S, k)
    values = transforms.interpolated(at.reshape(-1, low.shape[1])).reshape(*at.shape[:2], *_shape(transforms))
    slopes = []
    for j, share in enumerate(shares):
        centered = share - 0.5  # over a grid the parameters do not correlate
        along = np.einsum("s,escp->ecp", centered, values) / float(centered @ centered)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = along / width[:, j, None, None]
        slopes.append(np.where(np.isfinite(slope), slope, 0.0))
    return np.stack(slopes, axis=-1)


def _shape(transforms: Transforms) -> tuple[int, int]:
    return len(transforms.image), transforms.image[0].size
