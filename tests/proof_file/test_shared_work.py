"""Parts of a proof that other processes found are verified like those found here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mipverify
from mipverify.engine import run
from mipverify.parallel.residents import Abroad, Home
from mipverify.specification import robustness
from tests.proof_file.nets import WITHOUT_PROGRAMS, dense_file
from tests.proof_file.test_checked import checked
from tests.proof_file.test_cuts import STAGES

SENT: Counter[str] = Counter()


class Mailed:
    """All work is sent as to another process, in two parts, and so are its results."""

    count = 2

    def __init__(self, _: int):
        self.home, self.abroad = Home(), Abroad()

    def __enter__(self) -> Mailed:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def map(self, work: Callable[..., Any], context: Any, items: Sequence[Any], stop: Callable[[], bool]) -> list[Any]:
        SENT[work.__name__] += len(items)
        self.home.forget()
        there, answers = self.abroad.loads(self.home.dumps(context)), []
        mark = self.home.mark()
        for item in items:
            done = work(there, self.abroad.loads(self.home.dumps(item)), lambda: False)
            answers.append(self.home.loads(self.abroad.dumps(done)))
            self.home.forget(mark)
        return answers


@pytest.mark.parametrize(
    ("sizes", "seed", "scale", "eps", "stages", "works"),
    [
        ([12, 24, 24, 24, 3], 1, 1.2, 0.15, STAGES, {"_cut_units", "_raise", "expand"}),
        ([2, 24, 24, 3], 0, 1.5, 0.25, WITHOUT_PROGRAMS, {"_process"}),
    ],
    ids=["phases", "boxes"],
)
def test_what_others_found_is_verified(
    sizes: list[int],
    seed: int,
    scale: float,
    eps: float,
    stages: Any,
    works: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "ProcessPool", Mailed)
    SENT.clear()
    network = dense_file(tmp_path / "net.onnx", sizes, seed, scale)
    image = np.random.default_rng(seed).random(network.input_shape)
    label = int(network.forward(image[None]).argmax())
    asked = robustness(image, label, eps, num_classes=3)
    proof = mipverify.verify(network, asked, timeout=60, workers=2, proof=True, stages=stages).proof
    assert proof is not None
    assert works <= set(SENT)
    assert checked(tmp_path, proof) == 0
