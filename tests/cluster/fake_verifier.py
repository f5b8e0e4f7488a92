"""A verifier that knows the answers, for tests of everything above it: `sys.path` of the workers must reach it.

Label and behaviour of a sample are read from its first value: see `FATE`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mipverify.engine.sample import OPEN, SampleResult

HOLDS, WRONG, VIOLATED, UNKNOWN, OPEN_HOLDS, OPEN_VIOLATED, CRASHES, RAISES, CRASHES_ONCE, DIES_ALONE_ONCE = range(10)


def verify_batch(
    network: Any,
    images: np.ndarray,
    labels: np.ndarray,
    eps: str,
    *,
    indices: np.ndarray,
    timeout: float,
    solver: str,
    seed: int,
    only_cheap: bool = False,
    stop: Any = None,
    **inputs: Any,
) -> Iterator[SampleResult]:
    delay = float(os.environ.get("FAKE_DELAY", "0"))
    note = os.environ.get("FAKE_NOTES")
    for image, label, index in zip(images, labels, indices, strict=True):
        fate = int(image.reshape(-1)[0])
        if delay:
            time.sleep(delay)
        if fate == CRASHES:
            os.kill(os.getpid(), signal.SIGSEGV)
        if fate == RAISES:
            raise ValueError("this sample is cursed")
        if fate == DIES_ALONE_ONCE:
            fate = OPEN_HOLDS if only_cheap else CRASHES_ONCE
            (Path(str(note)) / f"limit={timeout}").touch()
        if fate == CRASHES_ONCE and note is not None:
            try:
                (Path(note) / f"crashed-{index}").touch(exist_ok=False)
            except FileExistsError:
                fate = HOLDS
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        yield result(image, int(label), int(index), fate, only_cheap=only_cheap)


def result(image: np.ndarray, label: int, index: int, fate: int, *, only_cheap: bool) -> SampleResult:
    unstable = (3, 1)
    if fate in (OPEN_HOLDS, OPEN_VIOLATED, UNKNOWN) and only_cheap:
        return SampleResult(index, label, label, "unknown", "crown", 0.01, -0.5, unstable=unstable, reason=OPEN)
    if fate == WRONG:
        return SampleResult(index, label, (label + 1) % 10, "misclassified", "forward", 0.001)
    if fate in (VIOLATED, OPEN_VIOLATED):
        point = np.clip(image.reshape(-1).astype(np.float32) * 0 + 0.25, 0, 1)
        other = (label + 1) % 10
        return SampleResult(index, label, label, "violated", "attack", 0.02, None, point, other, unstable)
    if fate == UNKNOWN:
        return SampleResult(index, label, label, "unknown", "milp", 0.1, -0.1, unstable=unstable, reason="time limit")
    trusted = ("highs 1.14.0",) if fate == OPEN_HOLDS else ()
    return SampleResult(index, label, label, "holds", "crown", 0.005, 0.3, unstable=unstable, trusted=trusted)
