"""What decides which stages a question goes through: cheap features of its box, its bounds and the user's choice."""

from __future__ import annotations

import numpy as np

from mipverify.engine.question import Question

FEW_BINARIES = 100  # up to here a MILP solver gets a share of the time
FEW_INPUTS = 12  # up to here halving the input box beats splitting ReLUs


def by_milp(question: Question) -> bool:
    """Whether the user asked for a MILP solver by name."""
    return question.solver not in ("auto", "bab")


def few_inputs(question: Question) -> bool:
    """Whether the box has so few free coordinates that halving it is the better way.

    Halved boxes creep up to a curved ball: where few ReLUs are unstable, their phases are the better way then.
    """
    lower, upper = question.box
    few = int(np.count_nonzero(upper > lower)) <= FEW_INPUTS
    return few and not (question.case.region is not None and small(question))


def small(question: Question) -> bool:
    """Whether so few ReLUs are unstable that a MILP solver may finish."""
    return question.bounds is not None and int(question.bounds.unstable_counts().sum()) <= FEW_BINARIES
