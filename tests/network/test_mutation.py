"""A sample of the mutation run: the comparison with the runtime lets no altered reading pass."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.network.mutation import MODULES, chosen, graph_cases, mutants, run

SAMPLE = {"activation": 32, "convolution": 20, "linear": 24, "maximum": 32, "pooling": 24, "shape": 24}


@pytest.mark.filterwarnings("ignore")
def test_altered_readings_are_refused() -> None:
    cases, counts = graph_cases(3, backend=False), Counter[str]()
    for module in MODULES:
        every, rng = list(mutants(module)), np.random.default_rng(1)  # its own: a change of one moves no other's sample
        for i in rng.choice(len(every), SAMPLE.get(module.rpartition(".")[2], 0), replace=False):
            for case, what in run(every[i], chosen(every[i], cases, 2), seconds=2):
                counts[what] += 1
                assert what != "escaped", f"{every[i]} on {case.name}"
    assert counts["caught"] >= 10
