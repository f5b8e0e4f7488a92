"""Stages for networks with one unstable layer of ReLUs: semidefinite bounds, and branching with them."""

from __future__ import annotations

from mipverify.engine.question import Question
from mipverify.engine.searches import go_on, phase_search

SHARE = 0.5  # of the time left, which branching may take
ENTRIES = 2**20  # of the inputs of all nodes that are bounded together; each has a vector


def lift_signs(question: Question) -> None:
    """Semidefinite bounds of all open conditions, from which branching may go on."""
    from mipverify.proof.semidefinite import Shallow
    from mipverify.solvers.branch_and_bound.lifted import LiftedBounder

    shallow = Shallow.of(question.reduced.bounds)
    if shallow is None:
        return
    question.note(f"{len(shallow.units)} units are unstable, all in one layer")
    bounder = LiftedBounder(shallow, question.network.input_shape)
    batch = min(128, max(2, ENTRIES // question.network.input_size))
    search = phase_search(question, bounder, [bounder.start(c) for c in question.open().tolist()], batch=batch)
    outcome = search.run(question.clock.over, split=False)
    question.nodes += outcome.nodes
    question.learn(outcome.bound)
    question.lifted = search


def split_lifted(question: Question) -> None:
    """Branch and bound on ReLU phases with semidefinite bounds."""
    search, clock = question.lifted, question.clock
    assert search is not None
    question.lifted = None  # its nodes take memory, and others follow
    go_on(question, [search], clock.elapsed() + SHARE * clock.left())
