"""Many input sets as one problem: what is known of each is a fact about it, and goes with it."""

from __future__ import annotations

import numpy as np
import pytest
from mipverify.presolve import crown, interval

from mipverify.engine.budget import Clock
from mipverify.engine.driver import Course
from mipverify.engine.problem import Problem
from mipverify.engine.samples import HandedOn, samples_together
from mipverify.engine.schedule import BATCH_CROWN, BATCH_OPTIMIZED_CROWN, CASCADE, FAST_LIN, INTERVAL, rest_of_cascade
from mipverify.engine.state import Update
from mipverify.engine.together import Together
from mipverify.network.replay import replay_of
from mipverify.proof.backward import row_minimum
from mipverify.proof.rows import unit_rows
from mipverify.specification.robustness import linf_ball
from tests.soundness.nets import dense, random_layers

NETWORK = dense(random_layers(np.random.default_rng(0), (6, 16, 16, 3)))
IMAGES = np.random.default_rng(1).random((7, 6)).astype(np.float32)
LABELS = NETWORK.forward(IMAGES.astype(np.float64)).argmax(axis=1)
LABELS[0] = (LABELS[0] + 1) % 3  # misclassified: its margins are negative
EVERY = np.arange(len(IMAGES))


def samples(eps: str = "0.05") -> Together:
    return samples_together(NETWORK, linf_ball(IMAGES, eps, domain=(0, 1)), LABELS, replay_of(NETWORK), 0)


def through(some: Together) -> Course:
    """All of them through the stages that bound."""
    course = Course(some.problem(EVERY), Clock(60.0))
    for stage in (INTERVAL, FAST_LIN, BATCH_CROWN, BATCH_OPTIMIZED_CROWN):
        course.run_stage(stage)
    return course


def test_margins_hold_at_the_inputs_of_each_sample() -> None:
    state, rng = through(samples()).state, np.random.default_rng(2)
    for k in EVERY.tolist():
        near = np.clip(IMAGES[k] + rng.uniform(-0.05, 0.05, (2000, 6)), 0, 1)
        values = NETWORK.forward(near)
        others = [c for c in range(3) if c != LABELS[k]]
        least = (values[:, [LABELS[k]]] - values[:, others]).min(axis=0)
        assert (state.of_entry(k) <= least + 1e-6).all()
        assert np.isfinite(state.of_entry(k)).all()
    assert not state.holds()[0]
    assert state.holds().any()


def test_what_a_sample_is_not_asked_about_does_not_keep_it_open() -> None:
    some = samples("0")
    state = through(some).state
    assert state.holds()[1:].all()
    assert (state.margins[1:] <= 0).any()  # of labels that are not its own
    assert set(state.open_pairs()[0]) == {0}


def test_some_of_them_keep_what_is_known() -> None:
    some, left = samples(), np.array([5, 0, 3])
    course = through(some)
    before = course.state
    course.keep(some.problem(left), left)
    assert (course.state.margins == before.margins[left]).all()
    for k, old in enumerate(left.tolist()):
        own = [row for row, pair in enumerate(before.hinted) if pair // before.margins.shape[1] == old]
        mine = [row for row, pair in enumerate(course.state.hinted) if pair // before.margins.shape[1] == k]
        assert (before.hints[own] == course.state.hints[mine]).all()


def test_what_is_known_of_one_sample_is_not_taken_for_another() -> None:
    some = samples()
    course = through(some)
    with pytest.raises(ValueError, match="not about"):
        course.keep(some.problem(np.array([1, 2])), np.array([1, 3]))
    problem = course.problem
    foreign = crown(interval(problem.margins, *problem.box))
    with pytest.raises(ValueError, match="about"):
        course.take(Update(facts=(foreign,)))
    rows = unit_rows(problem.margins, problem.margins.output, np.zeros(2, int), EVERY[:2], foreign.like)
    with pytest.raises(ValueError, match="about"):
        course.take(Update(facts=(row_minimum(foreign, rows),)))


def test_a_sample_by_itself_goes_on_with_what_is_known_of_it() -> None:
    some = samples()
    state = through(some).state
    ran = (INTERVAL, FAST_LIN, BATCH_CROWN, BATCH_OPTIMIZED_CROWN)
    for k in EVERY.tolist():
        known = HandedOn.of(state, k, ran)
        alone = Course(Problem.of(NETWORK, some.case(k), some.replay), Clock(60.0))
        alone.take(known.update(alone.problem))
        assert (alone.state.lower >= state.of_entry(k)).all()
        assert alone.state.proven.unstable_counts().sum() <= state.proven.unstable_counts()[k].sum()
        assert len(known.hints) == len(alone.state.hints)
        other = Problem.of(NETWORK, some.case((k + 1) % len(EVERY)), some.replay)
        with pytest.raises(ValueError, match=r"input set|rows"):
            known.update(other)
    names = [stage.name for stage in rest_of_cascade(ran)]
    assert not {"evaluation", "interval", "crown", "optimized crown"} & set(names)
    assert set(rest_of_cascade(())) == set(CASCADE)


@pytest.mark.parametrize("seconds", [60.0, 1e-9])
def test_every_question_is_answered_once(seconds: float) -> None:
    some, chosen = samples(), np.array([5, 0, 3, 2])
    found = {reached.place: (reached.holds, reached.witness) for reached in some.walk(Clock(seconds), chosen)}
    assert sorted(found) == sorted(chosen.tolist())
    for place, (holds, witness) in found.items():
        box = some.case(place).box
        near = np.random.default_rng(place).uniform(box.lower, box.upper, (2000, box.size))
        kept = NETWORK.forward(near).argmax(axis=1) == LABELS[place]
        assert kept.all() or not holds
        assert witness is None or NETWORK.forward(witness.input[None]).argmax() != LABELS[place]
    assert (found[0][1] is not None) == any(holds for holds, _ in found.values()) == (seconds > 1)
    assert len({*map(id, (reached.course for reached in some.walk(Clock(seconds), chosen)))}) == 1


def test_points_are_judged_before_any_stage() -> None:
    reached = next(samples().walk(Clock(60.0), first=IMAGES))
    assert (reached.place, reached.course.stage) == (0, "none")
    assert reached.witness is not None
    assert (reached.witness.input == IMAGES[0]).all()
