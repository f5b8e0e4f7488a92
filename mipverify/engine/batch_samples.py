"""Samples of a data set on their way through the batched stages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mipverify.network import Network


@dataclass(eq=False)
class Batch:
    """Samples on their way through the batched stages. Arrays have one entry a sample, of those still in the batch."""

    network: Network
    indices: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    lower: np.ndarray  # (B, *input) float64, outward
    upper: np.ndarray
    low32: np.ndarray  # (B, n) float32, inward
    high32: np.ndarray
    margins: np.ndarray  # (B, k) proven lower bounds of y_label - y_other; inf at the label

    def keep(self, some: np.ndarray) -> Batch:
        return Batch(
            self.network,
            self.indices[some],
            self.labels[some],
            self.predicted[some],
            self.lower[some],
            self.upper[some],
            self.low32[some],
            self.high32[some],
            self.margins[some],
        )

    def open_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """(sample, class) pairs that no bound excludes yet."""
        samples, classes = np.nonzero(~(self.margins > 0))
        return samples, classes

    def rows(self, samples: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """y_label - y_class as rows over the outputs (R, k)."""
        rows = np.zeros((len(samples), self.network.output_size))
        rows[np.arange(len(samples)), self.labels[samples]] = 1
        rows[np.arange(len(samples)), classes] = -1
        return rows
