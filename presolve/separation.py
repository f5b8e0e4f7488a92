"""Where the ideal formulation of a ReLU is violated: for each of many points the deepest cuts of a layer."""

from __future__ import annotations

import numpy as np

from mipverify.proof.cuts import IdealLayer, OwnCuts
from mipverify.proof.derivation import SLOPE_STEPS


def separate_rows(
    layer: IdealLayer, z: np.ndarray, x: np.ndarray, y: np.ndarray, a: np.ndarray, weight: np.ndarray, most: int
) -> OwnCuts:
    """For every row its deepest cuts at a point of its own, for the units where they promise most.

    z: (R, size of source). x, y, a: (R, size of node), values before and after the ReLU, and its phase. weight: the
    coefficient of y in the row (R, size of node): only where it is negative does y's upper side matter. most: how many
    cuts a row gets, where the layer has so many unstable units. They need not be violated, but always hold.
    """
    units = layer.units
    promise = np.maximum(-weight[:, units], 0) * np.maximum(y - np.maximum(x, 0), 0)[:, units]
    count = min(most, len(units))
    chosen = np.argpartition(-promise, count - 1, axis=1)[:, :count]
    phase = np.take_along_axis(a, units[chosen], axis=1)
    width = np.maximum(layer.upper - layer.lower, np.finfo(float).tiny)
    return layer.deepest(chosen, _parts((z - layer.lower) / width), _parts(phase))


def _parts(share: np.ndarray) -> np.ndarray:
    """Shares in [0, 1] as whole parts of 1 / SLOPE_STEPS."""
    return np.rint(np.nan_to_num(share).clip(0, 1) * SLOPE_STEPS).astype(np.uint8)
