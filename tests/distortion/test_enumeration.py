"""Distances agree with an enumeration of all linear pieces: every norm, targets, scales, constraints, margins."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mipverify import Distortion, minimum_distortion
from mipverify.network import Network
from mipverify.network.replay import replay_of
from tests.distortion.enumeration import Problem, closest, pieces
from tests.distortion.nets import KINDS, image_of

NORMS = ("linf", "l1", "l2")
GAP = 1e-4


def check(
    network: Network, image: np.ndarray, label: int, norm: str, expected: float, given: dict[str, Any]
) -> Distortion:
    """Ask for the distance and compare it with the expected one; the witness is looked at as well."""
    found = minimum_distortion(network, image, label, norm=norm, gap=GAP, timeout=30, **given)
    if not np.isfinite(expected):
        assert found.status == "none", (expected, found)
        return found
    assert found.status == "optimal", (expected, found)
    assert found.upper is not None
    assert found.witness is not None
    assert found.lower <= expected * (1 + 1e-6) + 1e-7, (expected, found)
    assert found.upper >= expected * (1 - 1e-6) - 1e-7, (expected, found)
    assert found.upper - found.lower <= GAP * found.upper
    scale = np.asarray(given.get("scale", np.ones(image.size))).reshape(-1)
    step = np.abs(found.witness.input.astype(np.float64).reshape(-1) - image.reshape(-1))
    assert (step[scale == 0] == 0).all()
    order = {"linf": np.inf, "l1": 1, "l2": 2}[norm]
    assert np.linalg.norm(step[scale > 0] / scale[scale > 0], ord=order) == pytest.approx(found.upper, rel=1e-9)
    scores = replay_of(network).run(found.witness.input.reshape(1, -1))[0]
    others = [target for target in given.get("targets", range(len(scores))) if target != label]
    assert max(scores[target] for target in others) >= scores[label] + given.get("margin", 0)
    for row, limit in given.get("constraints", ()):
        assert row @ found.witness.input.astype(np.float64).reshape(-1) <= limit
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_norm(kind: str, tmp_path: Path) -> None:
    finite = 0
    for seed in (1, 2):
        network = KINDS[kind](seed, tmp_path)
        image, label = image_of(network, seed)
        problem = Problem.around(image)
        found = pieces(network, problem)
        for norm in NORMS:
            expected = closest(found, problem, norm, label)
            check(network, image, label, norm, expected, {})
            finite += np.isfinite(expected)
    assert finite >= 3  # else the networks are too flat to tell anything


@lru_cache
def _given(seed: int) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return {
        "targets": {"targets": [int(rng.integers(3))]},
        "scale": {"scale": rng.uniform(0.2, 3, 3)},
        "fixed": {"scale": np.array([1.0, 0.0, 0.5])},
        "domain": {"domain": (-3, 2)},
        "constraints": {"constraints": [(rng.normal(size=3), None), (rng.normal(size=3), None)], "domain": (-2, 2)},
        "margin": {"margin": 0.25, "domain": (-1, 2)},
    }


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("what", ["targets", "scale", "fixed", "domain", "constraints", "margin"])
def test_every_argument(what: str, norm: str, tmp_path: Path) -> None:
    for seed, kind in enumerate(("dense", "skips"), 10):
        if kind != ("skips" if norm == "linf" else "dense"):
            continue
        network = KINDS[kind](seed, tmp_path)
        image, label = image_of(network, seed)
        given = dict(_given(seed)[what])
        if what == "targets":
            given["targets"] = [(label + 1 + seed % 2) % 3]
            given["domain"] = (-1, 2)
        if "constraints" in given:  # the image meets them with a little room
            flat = image.reshape(-1).astype(np.float64)
            given["constraints"] = [(row, float(row @ flat) + 0.05) for row, _ in given["constraints"]]
        asked = {key: given[key] for key in ("scale", "domain", "constraints") if key in given}
        problem = Problem.around(image, **asked)
        expected = closest(
            pieces(network, problem), problem, norm, label, given.get("targets"), given.get("margin", 0.0)
        )
        check(network, image, label, norm, expected, given)
