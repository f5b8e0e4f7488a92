"""What decides which stages a question goes through: cheap features of its box, its bounds and the user's choice."""

from __future__ import annotations

import numpy as np

from mipverify.attack.pgd import Attack, attack_work
from mipverify.engine.question import Question
from mipverify.network import Affine
from mipverify.proof.bounds import Bounds

QUICK = Attack(restarts=4, steps=12)  # before bounds that cost more

FEW_BINARIES = 200  # up to here a MILP solver gets a share of the time
FEW_DENSE_BINARIES = 100  # the same where hidden bounds lose much by cuts: programs of dense layers take far longer
FEW_INPUTS = 12  # up to here halving the input box beats splitting ReLUs
MOST_LIFTED = 2000  # units up to which semidefinite bounds are proven in seconds
MOST_ENTRIES = 2**18  # of linear programs of nodes
MOST_REDUCED = 2**26  # coefficients of a reduced network, which searches and programs work on: 512 MB
MOST_ENCODED = 2**25  # coefficients of a program of the whole network, of which solvers keep several copies
ATTACK_FIRST = 4  # times the work of a quick attack, from which CROWN comes after it
MUCH_CUT_OFF = 0.05  # share of widths from which cutting all hidden bounds pays before branching


def bounds_cost_more(question: Question) -> bool:
    """Whether CROWN of all unstable units costs several times what a quick attack does."""
    assert question.bounds is not None
    quick = attack_work(question.margins, len(question.open()), QUICK)
    return crown_work(question.bounds) > ATTACK_FIRST * quick


def crown_work(bounds: Bounds) -> int:
    """Multiplications of CROWN for all boxes, about: each unstable unit is passed back once in float32 and once a side
    in float64."""
    network = bounds.network
    return 3 * sum(int(np.count_nonzero(bounds.unstable(node))) * network.work[node] for node in network.preactivations)


def reducible(question: Question) -> bool:
    """Whether the network reduced to its unstable units fits into memory: no search on phases without."""
    from mipverify.proof.reduction import entries

    if question.bounds is None:
        return False
    fits = entries(question.bounds) <= MOST_REDUCED
    if not fits:
        units = int(question.bounds.unstable_counts().sum())
        question.reason = f"{units} unstable ReLUs are too many to branch on"
    return fits


def encodable(question: Question) -> bool:
    """Whether a program of the whole network fits into memory."""
    nodes = (node for node in question.margins.nodes if isinstance(node, Affine))
    fits = sum(term.operator.work for node in nodes for term in node.terms) <= MOST_ENCODED
    if not fits:
        question.reason = "the network is too large for a solver's program"
    return fits


def by_milp(question: Question) -> bool:
    """Whether the user asked for a MILP solver by name."""
    return question.solver not in ("auto", "bab") and not question.record  # no solver's word enters a proof


def few_inputs(question: Question) -> bool:
    """Whether the box has so few free coordinates that halving it is the better way.

    Halved boxes creep up to a curved ball: where few ReLUs are unstable, their phases are the better way then.
    """
    lower, upper = question.box
    few = int(np.count_nonzero(upper > lower)) <= FEW_INPUTS
    curved = not question.case.inputs.is_box
    return few and not (curved and small(question))


def small(question: Question) -> bool:
    """Whether so few ReLUs are unstable that a MILP solver may finish."""
    return question.bounds is not None and int(question.bounds.unstable_counts().sum()) <= FEW_BINARIES


def shallow(question: Question) -> bool:
    """Whether one layer of ReLUs is unstable: then semidefinite relaxations take the network as it is.

    The proof of a bound costs the cube of the number of units, and is not interrupted.
    """
    if question.bounds is None or question.record:
        return False
    counts = question.bounds.unstable_counts()
    return int((counts > 0).sum()) == 1 and int(counts.sum()) <= MOST_LIFTED and reducible(question)


def hidden_cuts_pay(question: Question) -> bool:
    """Whether cuts tighten hidden bounds so much that they come before branching: in dense networks."""
    return not question.record and not question.hidden_cut and _cut_gain(question) >= MUCH_CUT_OFF


def hidden_cuts_are_left(question: Question) -> bool:
    """Whether hidden bounds could still be cut, as the last means."""
    return not question.record and not question.hidden_cut and _cut_gain(question) > 0


def harder_tightening_pays(question: Question) -> bool:
    """Whether hidden units get more passes: in large dense networks of several layers."""
    if question.tightened_harder or question.bounds is None or question.record:
        return False
    counts = question.bounds.unstable_counts()
    several = int((counts > 0).sum()) > 1 and int(counts.sum()) > FEW_DENSE_BINARIES
    return several and _cut_gain(question) >= MUCH_CUT_OFF


def programs_pay(question: Question) -> bool:
    """Whether linear programs of nodes are solved as fast as ascents: in small reduced networks of several layers."""
    if not question.case.inputs.is_box or question.bounds is None:
        return False
    counts = question.bounds.unstable_counts()
    units = int(counts.sum())
    return int((counts > 0).sum()) > 1 and units * (units + question.network.input_size) <= MOST_ENTRIES


def milp_may_finish(question: Question) -> bool:
    """Whether a MILP solver is worth a share of the time, without being asked for: few binaries, and not tried yet."""
    if question.solver != "auto" or question.programmed or question.record or not small(question):
        return False
    assert question.bounds is not None
    dense = _cut_gain(question) >= MUCH_CUT_OFF
    return not dense or int(question.bounds.unstable_counts().sum()) <= FEW_DENSE_BINARIES


def was_interrupted(question: Question) -> bool:
    """Whether branching stopped before its time, for a MILP solver or to tighten hidden bounds."""
    cut_late = question.hidden_cut and _cut_gain(question) < MUCH_CUT_OFF
    return question.programmed or question.tightened_harder or cut_late


def _cut_gain(question: Question) -> float:
    """The share of the width of hidden bounds that cuts take away; measured on a few units, once."""
    from mipverify.presolve.cutting import share_cut_off

    if not reducible(question):
        return 0.0
    if question.cut_gain is None:
        question.cut_gain = share_cut_off(question.reduced.bounds)
        question.note(f"cuts take {question.cut_gain:.1%} off the width of hidden bounds")
    return question.cut_gain
