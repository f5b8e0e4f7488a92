"""Every rule of the kernel on arbitrary evidence, judged by exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from tests.proof.oracle import CHECKS


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers at the ends of the range are part of it
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rule", CHECKS)
def test_rule_is_sound_whatever_the_evidence(rule: str, seed: int) -> None:
    CHECKS[rule](np.random.default_rng(seed))
