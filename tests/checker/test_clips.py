"""Clipped bounds hold on the part of a set that they are about, and prove nothing of what is outside of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mipverify_check import onnx_file, operators
from mipverify_check.answer import check
from mipverify_check.arithmetic import EXACT, FLOATS, Arithmetic
from mipverify_check.clips import Clip
from mipverify_check.container import opened
from mipverify_check.errors import RejectedError
from mipverify_check.facts import Checker
from mipverify_check.question import read_cases

from tests.checker.examples import Example, by_clips, by_hidden_clips, started

SEEDS = range(12)
POINTS = 20_000


def clips(found: Example, arithmetic: Arithmetic = FLOATS) -> tuple[Checker, list[Clip]]:
    """A checker that has gone through all facts of an example, which are bounds, and the clipped ones of these."""
    network = operators.lowered(onnx_file.read(str(found.network)), arithmetic)
    proof = opened(found.writer.content())
    checker = Checker(proof, network, read_cases(proof, network), [("r1", 0), ("r2", 0)])
    for i, fact in enumerate(proof.header["facts"]):
        if fact["rule"] == "clip":
            checker.clips[i] = checker.clipped(fact)
        else:
            checker.bounds[i] = getattr(checker, fact["rule"])(fact)
    return checker, list(checker.clips.values())


def random_clips(folder: Path, seed: int) -> Example:
    """Three facts of clipped bounds, each within the one before, with random splits and multipliers."""
    rng = np.random.default_rng(seed)
    found = started(folder)
    writer = found.writer
    writer.fact("tighten", of=0, site=1, units=writer.array(np.arange(8), np.uint8), side="both", lines="parallel")
    splits = np.zeros((0, 3), int)
    for k in range(3):
        if k:
            more = [int(rng.integers(0, 2)), int(rng.integers(0, 8)), int(rng.choice([1, -1]))]
            splits = np.concatenate([splits, [more]])
        layers = [
            {
                "site": site,
                "units": writer.array(np.tile(np.arange(8), 2), np.uint8),
                "signs": writer.array(np.repeat([1, -1], 8), np.int8),
                "multipliers": writer.array(rng.gamma(0.5, size=(16, 1 + len(splits))), np.float32),
            }
            for site in (0, 1)
        ]
        given: dict[str, Any] = {"of": 1, "condition": 0, "level": float(rng.uniform(0.05, 0.5)), "lines": "adaptive"}
        if k:
            given["from"] = k + 1
        named = writer.array(splits, np.int8)
        writer.fact("clip", **given, splits=named, planes=named, layers=layers)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_bounds_hold_where_the_margin_is_low_and_the_phases_are_as_they_say(seed: int, tmp_path: Path) -> None:
    found = random_clips(tmp_path, seed)
    checker, held = clips(found)
    x = np.random.default_rng(seed).uniform(-0.5, 0.5, (3, POINTS))
    network, levels = checker.set(0).network, [f["level"] for f in found.writer.header["facts"] if "level" in f]
    values: list[Any] = [x]
    for node in network.nodes[1:]:
        source = getattr(node, "source", None)
        values.append(network.affine(node, values, POINTS) if source is None else np.maximum(values[source], 0))
    margin, inside = values[checker.set(0).margins.node][0], np.ones(POINTS, bool)
    tighter = False
    for clip, level in zip(held, levels, strict=True):
        inside &= margin <= level
        for node, unit, sign in clip.phases:
            inside &= sign * values[node][unit] >= 0
        for site in (0, 1):
            node = checker.source(network, site)
            low, high = clip.bounds.lower[node], clip.bounds.upper[node]
            assert (values[node][:, inside] >= low - 1e-12).all()
            assert (values[node][:, inside] <= high + 1e-12).all()
            tighter |= bool((values[node] < low).any() or (values[node] > high).any())
    assert tighter  # than what holds everywhere


@pytest.mark.parametrize("seed", range(3))
def test_floats_stay_outside_of_what_rational_numbers_find(seed: int, tmp_path: Path) -> None:
    found = random_clips(tmp_path, seed)
    for rough, exact in zip(clips(found)[1], clips(found, EXACT)[1], strict=True):
        for k, (low, high) in enumerate(zip(exact.bounds.lower, exact.bounds.upper, strict=True)):
            assert (rough.bounds.lower[k] <= low.astype(float) + 1e-15).all()
            assert (rough.bounds.upper[k] >= high.astype(float) - 1e-15).all()
            assert np.abs(rough.bounds.lower[k] - low.astype(float)).max() < 1e-9


def rejected(found: Example) -> str:
    network = operators.lowered(onnx_file.read(str(found.network)), FLOATS)
    with pytest.raises(RejectedError) as error:
        check(found.writer.content(), network, onnx_file.read(str(found.network)).sha256, str(found.property))
    return error.value.reason


def change(facts: list[dict[str, Any]], at: int, **more: Any) -> None:
    facts[at] |= more


@pytest.mark.parametrize(
    ("at", "more", "why"),
    [
        (2, {"level": 0.0}, "above zero"),
        (2, {"level": -0.5}, "above zero"),
        (2, {"level": float("1e999")}, ""),
        (2, {"of": 2}, "no earlier fact about bounds"),
        (3, {"of": 2}, "no earlier fact about bounds"),
        (3, {"from": 1}, "no earlier one about clipped bounds"),
        (4, {"of": 3}, "no earlier fact about bounds"),
        (4, {"within": 3}, "no earlier fact about bounds"),
        (4, {"clips": [3, 2]}, "not given for each leaf"),
        (4, {"clips": [2, 3, None]}, "other inputs"),  # its leaf has unit 0 of the first site inactive or unknown
        (4, {"clips": [1, None, None]}, "no earlier one about clipped bounds"),
        (4, {"clips": [4, None, None]}, "no earlier one about clipped bounds"),
    ],
)
def test_they_are_used_for_nothing_else(at: int, more: dict[str, Any], why: str, tmp_path: Path) -> None:
    found = by_clips(tmp_path)
    change(found.writer.header["facts"], at, **more)
    assert why in rejected(found)


def test_they_exclude_no_condition_by_themselves(tmp_path: Path) -> None:
    found = by_clips(tmp_path)
    writer = found.writer
    writer.header["facts"][4] = {"rule": "exclude", "of": 3, "conditions": writer.array([0], np.uint8)}
    assert "no earlier fact about bounds" in rejected(found)


def test_they_are_of_one_case_and_condition(tmp_path: Path) -> None:
    inner = clips(by_clips(tmp_path))[1][1]
    phases = inner.phases | {(0, 0, 1)}
    node, condition, sign = inner.goal
    inner.require(0, inner.goal, phases)
    for case, goal in ((1, inner.goal), (0, (node, condition + 1, sign)), (0, (node, condition, -sign))):
        with pytest.raises(RejectedError, match="other inputs"):
            inner.require(case, goal, phases)


def test_a_plane_needs_its_split(tmp_path: Path) -> None:
    found = by_clips(tmp_path)
    found.writer.header["facts"][2]["planes"] = found.writer.header["facts"][3]["planes"]
    assert "a plane of a unit that is not split" in rejected(found)


@pytest.mark.parametrize("arithmetic", [FLOATS, EXACT], ids=["floats", "exact"])
@pytest.mark.parametrize("seed", range(16))
def test_a_tree_within_clipped_bounds_shows_of_a_unit_what_is_true(
    seed: int, arithmetic: Arithmetic, tmp_path: Path
) -> None:
    """Levels that leave a part of the inputs, and multipliers that leave little of where the unit is low."""
    found, rng = by_hidden_clips(tmp_path), np.random.default_rng(seed)
    facts, writer = found.writer.header["facts"], found.writer
    del facts[5]  # the exclusion
    unit, sign = int(rng.integers(0, 8)), int(rng.choice([1, -1]))
    goal = {"unit": unit, "side": "lower" if sign > 0 else "upper"}
    network = operators.lowered(onnx_file.read(str(found.network)), FLOATS)
    node = network.relus["r2"][0]
    values = network.values(rng.uniform(-0.5, 0.5, (3, POINTS)))
    first, z = values[network.nodes[network.relus["r1"][0]].source], sign * values[network.nodes[node].source][unit]
    for k in (2, 3, 4):
        facts[k] |= goal
    for k, planes in ((2, 1), (3, 2)):
        facts[k]["level"] = float(max(0.01, np.quantile(z, rng.uniform(0.05, 0.5))))
        units, signs = writer.array(np.tile(np.arange(8), 2), np.uint8), writer.array(np.repeat([1, -1], 8), np.int8)
        mu = writer.array(rng.choice([0.1, 1, 10]) * rng.gamma(0.5, size=(16, planes)), np.float32)
        facts[k]["layers"] = [{"site": 0, "units": units, "signs": signs, "multipliers": mu}]
    checker, held = clips(found, arithmetic)
    source, outer = (checker.source(checker.set(0).network, site) for site in (1, 0))
    inside = first[:, z <= facts[2]["level"]]
    assert (inside >= held[0].bounds.lower[outer].astype(float) - 1e-12).all()
    assert (inside <= held[0].bounds.upper[outer].astype(float) + 1e-12).all()
    before, after = (
        float(sign * (bounds.lower if sign > 0 else bounds.upper)[source][unit, 0])
        for bounds in (checker.bounds[k][1] for k in (1, 4))
    )
    assert before <= after <= z.min() + 1e-12


@pytest.mark.parametrize("levels", [(0.25, 0.5), (0.5, 0.25)])
def test_the_level_of_bounds_that_begin_as_others_is_the_lesser(levels: tuple[float, float], tmp_path: Path) -> None:
    found = by_hidden_clips(tmp_path)
    facts = found.writer.header["facts"]
    facts[2]["level"], facts[3]["level"] = levels
    outer, inner = clips(found)[1]
    assert (outer.level, inner.level) == (levels[0], 0.25)


@pytest.mark.parametrize(
    ("at", "more", "why"),
    [
        (2, {"unit": 3}, "other inputs"),
        (2, {"side": "upper"}, "other inputs"),
        (2, {"site": 0}, "other inputs"),
        (4, {"unit": 3}, "other inputs"),
        (4, {"side": "upper"}, "other inputs"),
        (4, {"clips": [2, 3]}, "other inputs"),  # the second leaf has that unit inactive
        (3, {"side": "both"}, "neither about a condition nor about one side"),
        (3, {"condition": 0}, "about a condition and about a unit"),
        (3, {"level": -0.25}, "above zero"),
    ],
)
def test_clipped_bounds_of_one_side_of_a_unit_are_of_nothing_else(
    at: int, more: dict[str, Any], why: str, tmp_path: Path
) -> None:
    found = by_hidden_clips(tmp_path)
    change(found.writer.header["facts"], at, **more)
    assert why in rejected(found)


@pytest.mark.parametrize("vacant", [0, 1])
def test_where_nothing_is_left_the_unit_is_above_the_level_and_the_leaf_may_hold_inputs(
    vacant: int, tmp_path: Path
) -> None:
    """Were such leaves left out, the set would count as empty."""
    found = by_hidden_clips(tmp_path)
    facts = found.writer.header["facts"]
    facts[4]["empty"] = found.writer.array([vacant, vacant], np.uint8)
    tree, facts[:] = facts[4], facts[:4]
    checker, held = clips(found)
    for clip in held:  # as if all of it had been excluded
        bounds = clip.bounds
        bounds.lower[2], bounds.upper[2] = bounds.lower[2].copy(), bounds.upper[2].copy()
        bounds.lower[2][0, 0] = bounds.upper[2][0, 0] + 1
    facts.append(tree)
    checker.proof = opened(found.writer.content())
    shown = checker.phases(tree)
    assert shown is not None
    bounds = shown[1]
    assert float(bounds.lower[checker.source(checker.set(0).network, 1)][2, 0]) == 0.25


@pytest.mark.parametrize("vacant", [0, 1])
def test_no_pass_shows_more_than_the_level(vacant: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that ends far above it, be it of the unit or of a row of zeros."""
    found = by_hidden_clips(tmp_path)
    facts = found.writer.header["facts"]
    facts[4]["empty"] = found.writer.array([vacant, vacant], np.uint8)
    tree, facts[:] = facts[4], facts[:4]
    checker, _ = clips(found)
    facts.append(tree)
    checker.proof = opened(found.writer.content())
    monkeypatch.setattr("mipverify_check.clips.least", lambda *_: np.array([5.0]))
    shown = checker.phases(tree)
    assert shown is not None
    assert float(shown[1].lower[checker.source(checker.set(0).network, 1)][2, 0]) == 0.25


def test_bounds_of_another_goal_are_nothing_to_begin_with(tmp_path: Path) -> None:
    found = by_hidden_clips(tmp_path)
    change(found.writer.header["facts"], 2, unit=3)
    change(found.writer.header["facts"], 4, clips=[3, None])
    assert "other inputs" in rejected(found)
