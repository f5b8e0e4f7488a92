"""Every rule of the kernel on arbitrary evidence, judged by exact arithmetic."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from scripts.mutate_kernel import mutations
from tests.proof.oracle import CHECKS

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / "mipverify" / "proof"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers at the ends of the range are part of it
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rule", CHECKS)
def test_rule_is_sound_whatever_the_evidence(rule: str, seed: int) -> None:
    CHECKS[rule](np.random.default_rng(seed))


def test_what_is_to_be_altered_is_there() -> None:
    for module, old, new in mutations():
        assert (KERNEL / f"{module}.py").read_text().count(old) >= 1, f"{module}: {old}"
        assert old != new


def test_every_module_that_makes_facts_is_documented() -> None:
    rules = (ROOT / "docs" / "proofs.md").read_text().partition("## 3.")[2]
    makes = re.compile(
        r"(?<!class )\b(RowBounds|UnitBounds|LinearBounds|Bounds|Reduced|LayerCuts|OwnCuts)\(.*SEAL", re.DOTALL
    )
    for path in KERNEL.glob("*.py"):
        assert not makes.search(path.read_text()) or re.search(rf"`{path.stem}\b", rules), path.name
