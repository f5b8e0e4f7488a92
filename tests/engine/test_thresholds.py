"""Thresholds on a final sigmoid, and on two classes, are decided; witnesses are judged by what the file gives."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mipverify.engine import verify
from mipverify.errors import InputError
from mipverify.network import Network, load
from mipverify.specification import Box, Case, Condition, Specification
from mipverify.specification.conditions import Row
from tests.network.graphs import Graph, runtime


def network(folder: Path, function: str, outputs: int) -> tuple[Network, bytes]:
    g = Graph([1, 2], seed=3)
    h = g.node("Relu", [g.node("Gemm", ["x", g.random(2, 5), g.random(5)])])
    path = g.save(folder / "net.onnx", g.node(function, [g.node("Gemm", [h, g.random(5, outputs)])]))
    return load(path), path.read_bytes()


def question(rows: list[Row], outputs: int) -> Specification:
    box = Box.from_exact([Fraction(-1)] * 2, [Fraction(1)] * 2)
    return Specification((Case(box, (Condition.from_rows(rows, 2, outputs),)),), "vnnlib")


@pytest.mark.parametrize(("function", "outputs"), [("Sigmoid", 1), ("Sigmoid", 3), ("Softmax", 2), ("LogSoftmax", 2)])
@pytest.mark.parametrize("upper", [False, True])
def test_thresholds(function: str, outputs: int, upper: bool, tmp_path: Path) -> None:
    read, model = network(tmp_path, function, outputs)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 41)] * 2), axis=-1).reshape(-1, 1, 2).astype(np.float32)
    seen = np.array([runtime(model, x)[0, -1] for x in grid], np.float64)
    sign = 1 if upper else -1  # sign y <= sign t violates
    extreme = (sign * seen).min()
    for beyond, word in ((1e-3, "violated"), (-1e-2, "holds")):
        row = Row({outputs - 1: Fraction(sign)}, {}, Fraction(float(extreme + beyond)))
        verdict = verify(read, question([row], outputs), timeout=30)
        assert verdict.verdict == word
        if verdict.witness is not None:
            np.testing.assert_array_equal(verdict.witness.output, runtime(model, verdict.witness.input[None])[0])
            assert row.satisfied(verdict.witness.input.tolist(), verdict.witness.output.tolist())


def test_a_conjunction_of_thresholds_and_order(tmp_path: Path) -> None:
    read, model = network(tmp_path, "Sigmoid", 3)
    middle = runtime(model, np.zeros((1, 2), np.float32))[0].astype(np.float64)
    first, last = (int(k) for k in np.argsort(middle)[[-1, 0]])
    order = Row({last: Fraction(1), first: Fraction(-1)}, {}, Fraction(0))
    above = Row({first: Fraction(-1)}, {}, Fraction(-float(middle[first])))
    assert verify(read, question([order, above], 3), timeout=30).verdict == "violated"
    never = Row({first: Fraction(-1)}, {}, Fraction(-1))  # no sigmoid reaches 1
    assert verify(read, question([order, never], 3), timeout=30).verdict == "holds"


def test_what_is_no_threshold_is_refused_with_its_condition(tmp_path: Path) -> None:
    read, _ = network(tmp_path, "Softmax", 3)
    row = Row({0: Fraction(-1)}, {}, Fraction(-1, 2))
    with pytest.raises(InputError, match=r"Softmax at the end .*Y_0 >= 0\.5.*more than their order") as caught:
        verify(read, question([row], 3))
    assert "\n" not in str(caught.value)
