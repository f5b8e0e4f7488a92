"""A sample of the mutation run: the comparison with the runtime lets no altered reading pass."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.network.mutation import MODULES, chosen, graph_cases, mutants, run

SAMPLE = {"activation": 20, "convolution": 12, "linear": 16, "maximum": 16, "pooling": 16, "shape": 16}


@pytest.mark.filterwarnings("ignore")
def test_altered_readings_are_refused() -> None:
    cases, rng, counts = graph_cases(3, backend=False), np.random.default_rng(1), Counter[str]()
    for module in MODULES:
        every = list(mutants(module))
        for i in rng.choice(len(every), SAMPLE.get(module.rpartition(".")[2], 0), replace=False):
            for case, what in run(every[i], chosen(every[i], cases, 2), seconds=2):
                counts[what] += 1
                assert what != "escaped", f"{every[i]} on {case.name}"
    assert counts["caught"] >= 10
