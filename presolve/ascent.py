"""Gradient ascent on what bounds depend on: slopes, multipliers, lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Search:
    """How long and how boldly to search. `enough`: a row whose bound exceeds it needs no more iterations.

    Steps of split and cut multipliers are relative to the mean size of a row's coefficients at their layer, so that
    rows and layers of any scale are treated alike.
    """

    iterations: int = 20
    slope_step: float = 0.25
    multiplier_step: float = 8.0
    cut_step: float = 0.03
    decay: float = 0.95
    enough: float = 0.0


class Adam:
    """Ascent by Adam on a dictionary of arrays, each projected after its step; few steps, so its memory is short."""

    MEAN, SQUARE = 0.8, 0.9

    def __init__(self, arrays: dict[int, np.ndarray], step: float, project: Callable[[int, np.ndarray], np.ndarray]):
        self.arrays, self.step, self.project, self.time = arrays, step, project, 0
        self.mean = {k: np.zeros_like(v) for k, v in arrays.items()}
        self.square = {k: np.zeros_like(v) for k, v in arrays.items()}

    def ascend(
        self, gradients: dict[int, np.ndarray], scale: float, units: Mapping[int, np.ndarray] | None = None
    ) -> None:
        """One step along gradients, its length decayed by `scale` and measured in `units`, which broadcast to them."""
        self.time += 1
        one, two = 1 - self.MEAN**self.time, 1 - self.SQUARE**self.time
        for key, gradient in gradients.items():
            mean, square = self.mean[key], self.square[key]
            mean *= self.MEAN
            mean += (1 - self.MEAN) * gradient
            square *= self.SQUARE
            square += (1 - self.SQUARE) * gradient * gradient
            length: float | np.ndarray = scale * self.step / one
            if units is not None:
                length = (length * units[key]).astype(gradient.dtype)
            self.arrays[key] = self.project(key, self.arrays[key] + length * (mean / (np.sqrt(square / two) + 1e-8)))

    def keep(self, columns: np.ndarray) -> None:
        """Go on with some entries of the last axis alone."""
        for arrays in (self.arrays, self.mean, self.square):
            for key, array in arrays.items():
                arrays[key] = array[..., columns]
