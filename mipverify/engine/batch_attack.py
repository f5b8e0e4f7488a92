"""Attacks on all open pairs of a sample and a class of a batch, in parts of bounded work."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mipverify.attack.pgd import Attack, descend, walks_at_once
from mipverify.engine.batch_samples import Batch
from mipverify.network.replay import Replay

SETTINGS = Attack(steps=20)


def attack_batch(
    batch: Batch, replay: Replay, minimizers: np.ndarray | None, stop: Callable[[], bool]
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Witnesses by sample, with scores: descent on all open pairs from the middle, and from the bound's minimizer.

    minimizers: those of the bounds, if there are any, in the order of the pairs still open.
    """
    samples, classes = batch.open_pairs()
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    size = max(1, walks_at_once(batch.network) // 2)
    for begin in range(0, len(samples), size):
        chosen = np.arange(begin, min(begin + size, len(samples)))
        chosen = chosen[[int(k) not in found for k in samples[chosen]]]
        if len(chosen) and not (begin and stop()):
            own = None if minimizers is None else minimizers[chosen]
            _on_pairs(batch, replay, samples[chosen], classes[chosen], own, found, stop)
    return found


def _on_pairs(
    batch: Batch,
    replay: Replay,
    samples: np.ndarray,
    classes: np.ndarray,
    minimizers: np.ndarray | None,
    found: dict[int, tuple[np.ndarray, np.ndarray]],
    stop: Callable[[], bool],
) -> None:
    """The same for some pairs; adds to `found`."""
    middle = 0.5 * (batch.low32 + batch.high32)[samples]
    owners, starts = samples, middle.astype(np.float32)
    rows = batch.rows(samples, classes)
    if minimizers is not None:
        owners, rows = np.repeat(samples, 2), np.repeat(rows, 2, axis=0)
        starts = np.stack([middle, minimizers], axis=1).reshape(len(owners), -1).astype(np.float32)
    wanted = set(samples.tolist())

    def accept(walks: np.ndarray, points: np.ndarray) -> bool:
        for walk, point in zip(walks, points, strict=True):
            sample = int(owners[walk])
            if sample in found:
                continue
            point = np.clip(point, batch.low32[sample], batch.high32[sample])
            output = scores(replay.run(point[None]), batch.network.output_size)[0]
            label = batch.labels[sample]
            if np.isfinite(output).all() and np.delete(output, label).max() >= output[label]:
                found[sample] = (point, output)
        return wanted <= found.keys()

    low, high = batch.low32[owners], batch.high32[owners]
    descend(batch.network, starts, low, high, rows, SETTINGS, accept, stop)


def scores(outputs: np.ndarray, classes: int) -> np.ndarray:
    """Outputs (N, k) of the original file; where it ends in an ArgMax and gives a class, 1 for that, else 0."""
    return outputs if outputs.shape[1] == classes else np.eye(classes)[outputs[:, 0].astype(int)]
