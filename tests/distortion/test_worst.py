"""The smallest margin in a set agrees with an enumeration of all linear pieces; its witness has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mipverify import InputError, minimum_distortion, worst_margin
from mipverify.network.replay import replay_of
from tests.distortion.enumeration import Piece, Problem, least, pieces
from tests.distortion.nets import KINDS, image_of

GAP = 1e-4


def smallest(found: list[Piece], problem: Problem, norm: str, eps: float, label: int, targets: list[int]) -> float:
    """The smallest margin in the pieces, by a linear program in each; norm linf or l1."""
    count, best = len(problem.center), np.inf
    for piece in found:
        for target in targets:
            cost = piece.output[0][label] - piece.output[0][target]
            constant = piece.output[1][label] - piece.output[1][target]
            low, high = problem.low, problem.high
            matrix, offset = piece.matrix, piece.offset
            if norm == "linf":
                low = np.maximum(low, problem.center - eps * problem.scale)
                high = np.minimum(high, problem.center + eps * problem.scale)
            else:  # sizes s >= |x - center| / scale
                ends = [np.hstack([sign * np.eye(count), -np.diag(problem.scale)]) for sign in (1, -1)]
                total = np.append(np.zeros(count), np.ones(count))[None]
                matrix = np.vstack([np.hstack([matrix, np.zeros((len(matrix), count))]), *ends, total])
                offset = np.concatenate([offset, problem.center, -problem.center, [eps]])
                cost = np.append(cost, np.zeros(count))
                low, high = np.append(low, np.zeros(count)), np.append(high, np.full(count, np.inf))
            (solved,) = least(cost[None], matrix, offset, low, high)
            if solved is not None:
                best = min(best, solved[0] + constant)
    return best


@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_enumeration(kind: str, norm: str, tmp_path: Path) -> None:
    for seed, eps in ((0, 0.15), (1, 0.4)):
        network = KINDS[kind](seed, tmp_path)
        image, label = image_of(network, seed)
        given: dict[str, Any] = {}
        if seed and kind != "convolutional":
            given = {"scale": np.linspace(0.5, 1.5, image.size), "domain": (-1, 2), "targets": [(label + 1) % 3]}
        problem = Problem.around(image, **{k: v for k, v in given.items() if k != "targets"})
        targets = given.get("targets", [k for k in range(3) if k != label])
        expected = smallest(pieces(network, problem), problem, norm, eps, label, targets)
        found = worst_margin(network, image, label, eps, norm=norm, gap=GAP, timeout=30, **given)
        assert found.status == "optimal", (expected, found)
        allowed = 1e-5 * (1 + abs(expected))
        assert found.lower - allowed <= expected <= found.upper + allowed, (expected, found)
        assert found.upper - found.lower <= GAP * max(1.0, abs(found.upper))
        scores = replay_of(network).run(found.witness.input.reshape(1, -1))[0].astype(np.float64)
        assert found.upper == scores[label] - max(scores[k] for k in targets)
        step = np.abs(found.witness.input.reshape(-1).astype(np.float64) - image.reshape(-1))
        step = step / np.asarray(given.get("scale", 1.0))
        assert (step.max() if norm == "linf" else step.sum()) <= eps * (1 + 1e-6)


@pytest.mark.parametrize("kind", ["dense", "skips"])
def test_the_sign_of_an_l2_margin_is_that_of_the_distance(kind: str, tmp_path: Path) -> None:
    network = KINDS[kind](1, tmp_path)
    image, label = image_of(network, 1)
    far = minimum_distortion(network, image, label, norm="l2", timeout=30)
    assert far.upper is not None
    inside = worst_margin(network, image, label, 0.95 * far.lower, norm="l2", timeout=30)
    assert inside.lower > 0
    beyond = worst_margin(network, image, label, 1.05 * far.upper, norm="l2", timeout=30)
    assert beyond.upper < 0
    assert beyond.lower < 0
    for found in (inside, beyond):
        assert found.status == "optimal", found


def test_sampling_finds_no_smaller_margin(tmp_path: Path) -> None:
    network = KINDS["skips"](3, tmp_path)
    image, label = image_of(network, 3)
    found = worst_margin(network, image, label, "0.3", timeout=30)
    rng = np.random.default_rng(0)
    flat = image.reshape(-1)
    points = np.clip(flat + rng.uniform(-0.3, 0.3, (5000, flat.size)), 0, 1)
    scores = network.forward(points.reshape(-1, *network.input_shape)).reshape(len(points), -1)
    margins = scores[:, label] - np.delete(scores, label, axis=1).max(axis=1)
    assert margins.min() >= found.lower
    assert found.upper <= margins.min() + 1e-4


def test_out_of_time_the_bounds_still_hold(tmp_path: Path) -> None:
    network = KINDS["dense"](0, tmp_path)
    image, label = image_of(network, 0)
    found = worst_margin(network, image, label, 0.4, timeout=1e-3)
    exact = worst_margin(network, image, label, 0.4, timeout=30)
    assert found.lower <= exact.upper + 1e-6
    assert found.upper >= exact.lower - 1e-6


@pytest.mark.parametrize(
    "given", [{"eps": -1}, {"eps": 0.1, "gap": 0}, {"eps": 0.1, "norm": "l3"}, {"eps": 0.1, "targets": [7]}]
)
def test_bad_arguments(given: dict[str, Any], tmp_path: Path) -> None:
    network = KINDS["dense"](0, tmp_path)
    image, label = image_of(network, 0)
    with pytest.raises(InputError):
        worst_margin(network, image, label, **given)
