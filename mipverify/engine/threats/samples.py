"""Samples of a data set against a threat: each is a question of its own, once its clean output is right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mipverify.engine.sample import OPEN, SampleResult
from mipverify.engine.samples import LeftOpen, answered
from mipverify.engine.threats.sample import Sample
from mipverify.engine.threats.threat import Limits, Threat
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.network.validation import validated
from mipverify.specification.normalization import Normalization
from mipverify.specification.robustness import nearest_inputs


def verify_threatened(
    network: Network,
    images: np.ndarray,
    labels: np.ndarray,
    eps: str,
    *,
    threat: Threat,
    domain: tuple[object, object] | None = (0, 1),
    mean: object = 0,
    std: object = 1,
    stored: tuple[int, ...] = (),
    other: Callable[[int], np.ndarray] | None = None,
    indices: Sequence[int] | np.ndarray | None = None,
    timeout: float = 300.0,
    solver: str = "auto",
    seed: int = 0,
    only_cheap: bool = False,
    stop: Callable[[], bool] | None = None,
    proofs: bool = False,
    kept: LeftOpen | None = None,
) -> Iterator[SampleResult]:
    """Verdicts of samples against a threat; arguments as in `verify_batch`.

    eps: empty for a threat without a radius. stored, other: as in `Sample`. only_cheap: only clean outputs are looked
    at, and right ones left open. kept: not used. Raises InputError where a threat does not fit the images, or proofs
    are asked for.
    """
    if proofs:
        raise InputError(f"threat {threat.text}: no proofs can be written of it")
    indices = np.arange(len(images)) if indices is None else np.asarray(indices)
    began = time.perf_counter()
    for result, image in _clean(network, images, labels, indices, mean, std, began):
        if stop is not None and stop():
            return
        if result.verdict == "misclassified" or only_cheap:
            yield result
            continue
        sample = Sample(image, result.label, eps or None, "linf", domain, mean, std, None, stored, other)
        limits = Limits(timeout, solver, seed, arithmetic=network.arithmetic)
        verdict = threat.verify(network, sample, limits)
        worst, parts = described(verdict.statistics.get("worst")), int(verdict.statistics.get("parts", 1))
        yield replace(answered(result, verdict), worst=worst, parts=parts)


def described(worst: dict[str, Any] | None) -> str:
    """Where or by which parameters an answer was reached, in words; empty where nothing is told of that."""
    return "" if not worst else ", ".join(f"{name} {value:.5g}" for name, value in worst.items())


def _clean(
    network: Network,
    images: np.ndarray,
    labels: np.ndarray,
    indices: np.ndarray,
    mean: object,
    std: object,
    began: float,
) -> Iterator[tuple[SampleResult, np.ndarray]]:
    """For each sample what its clean output says, with the image: misclassified, or open."""
    points = nearest_inputs(images, Normalization.of(mean, std, images.shape[1:]))
    outputs = validated(network, points).run(points)
    if outputs.shape[1] != network.output_size:  # the file ends in an ArgMax
        outputs = np.eye(network.output_size)[outputs[:, 0].astype(int)]
    own = np.arange(len(images))
    others = outputs.astype(np.float64).copy()
    others[own, labels] = -np.inf
    right = outputs[own, labels] > others.max(axis=1)
    seconds = (time.perf_counter() - began) / max(1, len(images))
    for k in own.tolist():
        label, index = int(labels[k]), int(indices[k])
        if right[k]:
            yield SampleResult(index, label, label, "unknown", "evaluation", seconds, reason=OPEN), images[k]
        else:
            predicted = int(others[k].argmax())
            yield SampleResult(index, label, predicted, "misclassified", "evaluation", seconds), images[k]
