"""Networks and questions that mean the same must not get contradicting verdicts, and harder ones no easier proofs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import mipverify
from mipverify.network import Network
from tests.soundness.nets import Layers, dense, lowest_sampled, question, random_layers

WIDTHS = (14, 10, 8, 3)  # more inputs than input splitting takes: the phases are split
FEW = (3, 10, 8, 3)
SOLVERS = ("auto", "highs")


def permuted(layers: Layers, rng: np.random.Generator) -> Layers:
    """Every hidden layer's units in another order."""
    out = list(layers)
    for k in range(len(out) - 1):
        order = rng.permutation(len(out[k][1]))
        out[k] = (out[k][0][order], out[k][1][order])
        out[k + 1] = (out[k + 1][0][:, order], out[k + 1][1])
    return out


def rescaled(layers: Layers, rng: np.random.Generator) -> Layers:
    """A power of two in one layer, taken back in the next, unit by unit: ReLU is positively homogeneous."""
    out = list(layers)
    for k in range(len(out) - 1):
        factor = np.float32(2.0) ** rng.integers(-6, 7, size=len(out[k][1])).astype(np.float32)
        out[k] = (out[k][0] * factor[:, None], out[k][1] * factor)
        out[k + 1] = (out[k + 1][0] / factor, out[k + 1][1])
    return out


def duplicated(layers: Layers, rng: np.random.Generator) -> Layers:
    """One unit of each hidden layer twice, each of the two with half of the outgoing weights."""
    out = list(layers)
    for k in range(len(out) - 1):
        unit = int(rng.integers(len(out[k][1])))
        weight, bias = out[k]
        out[k] = (np.concatenate([weight, weight[[unit]]]), np.append(bias, bias[unit]))
        after = out[k + 1][0].copy()
        after[:, unit] /= 2
        out[k + 1] = (np.concatenate([after, after[:, [unit]]], axis=1), out[k + 1][1])
    return out


def with_identity(layers: Layers, rng: np.random.Generator) -> Layers:
    """The outputs as relu(y) - relu(-y), twice."""
    out = list(layers)
    for _ in range(2):
        weight, bias = out.pop()
        out.append((np.concatenate([weight, -weight]), np.concatenate([bias, -bias])))
        size = len(bias)
        both = np.concatenate([np.eye(size), -np.eye(size)], axis=1).astype(np.float32)
        out.append((both, np.zeros(size, np.float32)))
    return out


def unchanged(layers: Layers, rng: np.random.Generator) -> Layers:
    """The network as it is, under another seed."""
    return layers


def hard(seed: int, widths: tuple[int, ...], gap: float) -> tuple[Layers, np.ndarray, np.ndarray, list]:
    """A network, a box, and a condition that lies `gap` below what sampling finds: violated if that is negative."""
    rng = np.random.default_rng([seed, 11])
    layers = random_layers(rng, widths)
    center, radius = rng.normal(size=widths[0]), 0.3 if widths[0] > 12 else 1.0
    lower, upper = (side.astype(np.float32).astype(np.float64) for side in (center - radius, center + radius))
    row = [1.0, -1.0, 0.0]
    lowest = lowest_sampled(dense(layers), lower, upper, row)
    return layers, lower, upper, [[(row, float(np.float32(lowest - gap)))]]


def decide(network: Network, specification: mipverify.Specification, solver: str = "auto", seed: int = 0) -> str:
    verdict = mipverify.verify(network, specification, timeout=3.0, solver=solver, seed=seed)
    if verdict.witness is not None:
        assert specification.violated_by(verdict.witness.input, verdict.witness.output)
    return verdict.verdict


@pytest.mark.parametrize("gap", [0.02, -0.02])
@pytest.mark.parametrize("widths", [WIDTHS, FEW], ids=["phases", "boxes"])
@pytest.mark.parametrize("change", [permuted, rescaled, duplicated, with_identity, unchanged], ids=lambda f: f.__name__)
def test_the_same_function_gets_the_same_verdict(
    change: Callable[[Layers, np.random.Generator], Layers], widths: tuple[int, ...], gap: float
) -> None:
    rng = np.random.default_rng(5)
    expected = "holds" if gap > 0 else "violated"
    for seed in range(2):
        layers, lower, upper, conditions = hard(seed, widths, gap)
        specification = question(lower, upper, conditions)
        points = np.clip(rng.normal(size=(50, len(lower))), lower, upper)
        changed = dense(change(layers, rng))
        np.testing.assert_allclose(changed.forward(points), dense(layers).forward(points), rtol=1e-9, atol=1e-9)
        found = [decide(changed, specification, solver, seed) for solver in SOLVERS]
        assert found == [expected] * len(SOLVERS), f"seed {seed}"


@pytest.mark.parametrize("widths", [WIDTHS, FEW], ids=["phases", "boxes"])
def test_negated_inputs_change_nothing(widths: tuple[int, ...]) -> None:
    for seed in range(3):
        for gap, expected in ((0.02, "holds"), (-0.02, "violated")):
            layers, lower, upper, conditions = hard(seed, widths, gap)
            mirrored = [(-layers[0][0], layers[0][1]), *layers[1:]]
            assert decide(dense(mirrored), question(-upper, -lower, conditions)) == expected


@pytest.mark.parametrize("widths", [WIDTHS, FEW], ids=["phases", "boxes"])
def test_parts_of_a_proven_box_hold_and_boxes_around_a_violated_one_are_violated(widths: tuple[int, ...]) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        layers, lower, upper, conditions = hard(seed, widths, 0.02)
        network = dense(layers)
        assert decide(network, question(lower, upper, conditions)) == "holds"
        a, b = (lower + rng.random(len(lower)) * (upper - lower) for _ in range(2))
        inner_low, inner_high = (np.clip(v.astype(np.float32), lower, upper) for v in (np.fmin(a, b), np.fmax(a, b)))
        assert decide(network, question(inner_low, inner_high, conditions)) == "holds"
        layers, lower, upper, conditions = hard(seed, widths, -0.02)
        assert decide(dense(layers), question(lower, upper, conditions)) == "violated"
        assert decide(dense(layers), question(lower - 0.125, upper + 0.25, conditions)) == "violated"


def test_a_violated_condition_stays_so_in_company() -> None:
    for seed in range(4):
        layers, lower, upper, (violated,) = hard(seed, WIDTHS, -0.02)
        network = dense(layers)
        never = [([0.0, 0.0, 1.0], -100.0)]
        assert decide(network, question(lower, upper, [never])) == "holds"
        for conditions in ([never, violated], [violated, never], [never, never, violated, never]):
            assert decide(network, question(lower, upper, conditions)) == "violated"
        # As one conjunction with something impossible, nothing violates it any more.
        assert decide(network, question(lower, upper, [[*violated, *never]])) == "holds"


def test_the_reported_margin_is_below_everything_sampled() -> None:
    for seed in range(2):
        for widths in (WIDTHS, FEW):
            layers, lower, upper, conditions = hard(seed, widths, 0.1)
            ((row, offset),) = conditions[0]
            network, specification = dense(layers), question(lower, upper, conditions)
            best = lowest_sampled(network, lower, upper, row, seed + 1) - offset
            for solver in ("auto", "bab", "highs"):
                verdict = mipverify.verify(network, specification, timeout=5.0, solver=solver)
                assert verdict.verdict == "holds"
                assert verdict.margin_lower_bound is not None
                assert 0 < verdict.margin_lower_bound <= best
