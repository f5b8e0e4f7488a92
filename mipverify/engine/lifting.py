"""Stages for networks with one unstable layer of ReLUs: semidefinite bounds, and branching with them."""

from __future__ import annotations

from functools import partial

from mipverify.engine.leaves import leaf_solver
from mipverify.engine.question import Question
from mipverify.engine.searches import descend_from, go_on, tell

SHARE = 0.5  # of the time left, which branching may take


def lift_signs(question: Question) -> None:
    """Semidefinite bounds of all open conditions, from which branching may go on."""
    from mipverify.presolve.semidefinite import Shallow
    from mipverify.solvers.branch_and_bound.lifted import LiftedBounder, lifted_root
    from mipverify.solvers.branch_and_bound.search import PhaseSearch, Proof

    reduced, kept = question.reduced, question.proofs
    shallow = Shallow.of(reduced.bounds)
    if shallow is None:
        return
    question.note(f"{len(shallow.units)} units are unstable, all in one layer")
    proof = Proof(LiftedBounder(shallow, question.network.input_shape, keep=kept is not None))
    if kept is not None:
        kept.append(proof)
    search = PhaseSearch(
        proof.bounder,
        [lifted_root(int(condition)) for condition in question.open()],
        try_points=partial(descend_from, question),
        solve_leaf=leaf_solver(question, reduced),
        hands=question.hands,
        progress=partial(tell, question),
        closed=None if kept is None else proof.nodes.append,
    )
    outcome = search.run(question.clock.over, split=False)
    question.nodes += outcome.nodes
    question.learn_all(outcome.lower)
    question.lifted = search


def split_lifted(question: Question) -> None:
    """Branch and bound on ReLU phases with semidefinite bounds."""
    search, clock = question.lifted, question.clock
    assert search is not None
    question.lifted = None  # its nodes take memory, and others follow
    go_on(question, [search], clock.elapsed() + SHARE * clock.left())
