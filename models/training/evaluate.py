"""What training bought: accuracies, unstable units and verification time, of one network or of two side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mipverify.models.training.data import Images
from mipverify.models.training.files import NETWORK, Trained, read_network
from mipverify.models.training.measure import accuracy, attacked_accuracy, unstable_by_layer

import mipverify
from mipverify.errors import InputError
from mipverify.report.run import Status


def evaluate(
    run: str | Path,
    test: Images,
    eps: float,
    samples: tuple[int, int],
    *,
    timeout: float = 120.0,
    workers: int = 0,
    progress: Callable[[Status], None] | None = None,
) -> dict[str, Any]:
    """Figures of the network in the directory of a run.

    `accuracy` of all test images; for the images `samples` (begin, end): `pgd_accuracy`, `exact_accuracy` as an
    interval [low, high] (wider than a point if some are undecided), `seconds_mean` and `seconds_median` to verify
    one, and `unstable`, the mean number of unstable units of each layer by interval arithmetic.

    Raises InputError: the directory holds no network, or there are no such samples.
    """
    begin, end = samples
    if not 0 <= begin < end <= len(test):
        raise InputError(f"--samples {begin}:{end}: {test.path} has {len(test)} images, counted from 0")
    trained = read_network(run)
    if trained.input_shape != test.shape:
        raise InputError(f"{test.path}: images of shape {test.shape}, but the network takes {trained.input_shape}")
    chosen = Images(test.pixels[begin:end], test.labels[begin:end], test.path, test.sha256)
    exact = mipverify.adversarial_accuracy(
        str(Path(run) / NETWORK),
        chosen.pixels.numpy(),
        chosen.labels.numpy(),
        eps,
        timeout=timeout,
        workers=workers,
        progress=progress,
    )
    error = exact.summary["adversarial_error"]
    seconds = [sample.seconds for sample in exact.samples]
    return {
        "eps": eps,
        "test_images": len(test),
        "samples": [begin, end],
        "timeout": timeout,
        "accuracy": accuracy(trained.module, test),
        "pgd_accuracy": attacked_accuracy(trained.module, chosen, eps),
        "exact_accuracy": [1 - error["upper"], 1 - error["lower"]],
        "seconds_mean": float(np.mean(seconds)),
        "seconds_median": float(np.median(seconds)),
        "unstable": unstable_by_layer(trained, chosen, eps),
        "nonzero_weights": nonzero_weights(trained),
    }


def nonzero_weights(trained: Trained) -> int:
    """Number of weights (without biases) that are not zero."""
    return sum(int((p != 0).sum()) for p in trained.module.parameters() if p.ndim > 1)


def table_of(columns: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """Rows (name, one text for each network) of the figures, for printing; the first row says of what they are."""
    first = next(iter(columns.values()))
    begin, end = first["samples"]
    rows: list[tuple[str, ...]] = [(f"eps {first['eps']:g}, test images {begin} to {end - 1}", *columns)]
    names = {
        "accuracy": f"test accuracy, all {first['test_images']:,}",
        "pgd_accuracy": "PGD accuracy",
        "exact_accuracy": f"exact adversarial accuracy, {first['timeout']:g} s each",
        "seconds_mean": "verification, mean",
        "seconds_median": "verification, median",
        "unstable": "unstable units by layer",
        "nonzero_weights": "weights that are not zero",
    }
    for key, name in names.items():
        rows.append((name, *(_text(key, figures[key]) for figures in columns.values())))
    return rows


def _text(key: str, value: Any) -> str:
    if key == "exact_accuracy":
        low, high = value
        return f"{low:.2%}" if low == high else f"{low:.2%} to {high:.2%}"
    if key.endswith("accuracy"):
        return f"{value:.2%}"
    if key.startswith("seconds"):
        return f"{1000 * value:.1f} ms"
    if key == "unstable":
        return " + ".join(f"{count:.1f}" for count in value)
    return f"{value:,}"
