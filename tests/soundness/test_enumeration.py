"""Verdicts against exhaustive enumeration of ReLU phases in rational numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from exact import random_question

from mipverify.engine import verify


@pytest.mark.parametrize("solver", ["auto", "bab", "highs"])
@pytest.mark.parametrize("seed", range(4))
def test_verdicts_never_contradict_the_exact_answer(solver: str, seed: int) -> None:
    rng = np.random.default_rng([seed, 7])
    unknown = 0
    for _ in range(12):
        question = random_question(rng)
        verdict = verify(question.network(), question.specification(), timeout=2.0, solver=solver)
        violated = question.violated()
        if verdict.verdict == "holds":
            assert not violated, question
        elif verdict.verdict == "violated":
            assert violated, question
        else:
            unknown += 1
        single = len(question.conditions) == 1 and len(question.conditions[0]) == 1
        if single and verdict.margin_lower_bound is not None:
            margin = question.smallest_margin()
            assert margin is not None
            assert Fraction(verdict.margin_lower_bound) <= margin
    assert unknown <= 6, "a verifier that decides nothing is of no use"
