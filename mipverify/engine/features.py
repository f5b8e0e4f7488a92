"""Cheap features of a problem and of what is known of it, from which stages tell whether they are worth their time."""

from __future__ import annotations

import numpy as np

from mipverify.engine.problem import Problem
from mipverify.engine.state import State
from mipverify.formulation.program import fits
from mipverify.proof.bounds import Bounds

FEW_BINARIES = 200  # unstable ReLUs up to which a MILP solver gets a share of the time
FEW_DENSE_BINARIES = 100  # the same where cuts gain much: programs of dense layers take far longer
FEW_INPUTS = 12  # free coordinates up to which halving the input box beats splitting ReLUs
MOST_REDUCED = 2**26  # coefficients of a reduced network, which searches and programs work on: 512 MB
MUCH_CUT_OFF = 0.05  # share of widths from which cutting all intermediate bounds pays before branching


def by_milp(problem: Problem) -> bool:
    """Whether the user asked for a MILP solver by name."""
    return problem.solver not in ("auto", "bab")


def unstable(state: State) -> int:
    """How many ReLUs are unstable."""
    return int(state.proven.unstable_counts().sum())


def unstable_layers(state: State) -> int:
    """How many layers have unstable ReLUs."""
    return int((state.proven.unstable_counts() > 0).sum())


def small(state: State) -> bool:
    """Whether so few ReLUs are unstable that a MILP solver may finish."""
    return state.bounds is not None and unstable(state) <= FEW_BINARIES


def few_inputs(problem: Problem, state: State) -> bool:
    """Whether the box has so few free coordinates that halving it is the better way.

    Halved boxes creep up to a curved ball: where few ReLUs are unstable, their phases are the better way then.
    """
    return free_inputs(problem) <= FEW_INPUTS and not (not problem.inputs.is_box and small(state))


def free_inputs(problem: Problem) -> int:
    """How many coordinates of the box are not fixed."""
    lower, upper = problem.box
    return int(np.count_nonzero(upper > lower))


def reducible(state: State) -> bool:
    """Whether the network reduced to its unstable units fits into memory: no search on phases without."""
    from mipverify.proof.reduction import entries

    return state.bounds is not None and entries(state.bounds) <= MOST_REDUCED


def too_many_units(state: State) -> str:
    """What a user is told where the network is not reducible."""
    if state.bounds is None or reducible(state):
        return ""
    return f"{unstable(state)} unstable ReLUs are too many to branch on"


def encodable(problem: Problem) -> bool:
    """Whether a program of the whole network fits into memory."""
    return fits(problem.margins)


def too_large_a_program(problem: Problem) -> str:
    """What a user is told where the network is not encodable."""
    return "" if encodable(problem) else "the network is too large for a solver's program"


def cut_gain(state: State) -> float:
    """The share of the width of intermediate bounds that cuts take away, as far as it was measured."""
    return state.cut_gain or 0.0


def dense(state: State) -> bool:
    """Whether cuts tighten intermediate bounds much, as they do in dense layers."""
    return cut_gain(state) >= MUCH_CUT_OFF


def crown_work(bounds: Bounds) -> int:
    """Multiplications of CROWN for all boxes, about: each unstable unit is passed back once in float32 and once a side
    in float64."""
    network = bounds.network
    return 3 * sum(int(np.count_nonzero(bounds.unstable(node))) * network.work[node] for node in network.preactivations)
