"""Networks that encode formulas: the verdict is what enumeration says, and rests on no solver's word."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from mipverify.presolve.propagation import Domains, Propagation
from mipverify_check import main as checker
from onnx import TensorProto, helper, numpy_helper

import mipverify
from mipverify.engine.schedule import CASCADE, LOOK_AHEAD, RECORDED
from mipverify.specification import Box, Case, Condition, Specification
from mipverify.specification.conditions import Row

VARIABLES = 14
WITHOUT_INPUT_SPLITTING = tuple(stage for stage in CASCADE if stage.name != "input splitting")


def formula(seed: int, clauses: int) -> np.ndarray:
    """Random clauses (C, VARIABLES) of three literals: +1 where one is a variable, -1 where it is negated."""
    rng = np.random.default_rng(seed)
    found = np.zeros((clauses, VARIABLES))
    for clause in found:
        clause[rng.choice(VARIABLES, 3, replace=False)] = rng.choice([-1.0, 1.0], 3)
    return found


def satisfiable(clauses: np.ndarray) -> bool:
    values = 2 * np.array(list(itertools.product((0, 1), repeat=VARIABLES))) - 1
    return bool(((values @ clauses.T) > -3).all(axis=1).any())


def question(folder: Path, clauses: np.ndarray) -> tuple:
    """By how much clauses are violated, and how far inputs are from 0 and 1, which must both be at most zero."""
    count = len(clauses)
    weight = np.concatenate([-clauses, np.eye(VARIABLES), 2 * np.eye(VARIABLES)]).astype(np.float32)
    bias = np.concatenate([1 - (clauses < 0).sum(axis=1), np.zeros(VARIABLES), -np.ones(VARIABLES)]).astype(np.float32)
    last = np.zeros((2, len(weight)), np.float32)
    last[0, :count], last[1, count : count + VARIABLES], last[1, count + VARIABLES :] = 1, 1, -1
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["z"], transB=1),
            helper.make_node("Relu", ["z"], ["r"]),
            helper.make_node("Gemm", ["r", "l", "c"], ["y"], transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, VARIABLES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [
            numpy_helper.from_array(array, name)
            for name, array in {"w": weight, "b": bias, "l": last, "c": np.zeros(2, np.float32)}.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "net.onnx")
    rows = [Row({k: Fraction(1)}, {}, Fraction(0), False) for k in range(2)]
    box = Box.from_exact([Fraction(0)] * VARIABLES, [Fraction(1)] * VARIABLES)
    case = Case(box, (Condition.from_rows(rows, VARIABLES, 2),))
    return mipverify.load(folder / "net.onnx"), Specification((case,), "vnnlib")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("clauses", [45, 75, 110])
def test_formulas_are_decided_as_enumeration_does(tmp_path: Path, seed: int, clauses: int) -> None:
    made = formula(seed, clauses)
    verdict = mipverify.verify(*question(tmp_path, made), timeout=60, stages=WITHOUT_INPUT_SPLITTING)
    assert verdict.verdict == ("violated" if satisfiable(made) else "holds")
    assert verdict.trusted == ()
    assert verdict.verdict == "violated" or verdict.stage == "look-ahead"


def test_what_propagation_says_wrongly_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = formula(0, 45)
    assert satisfiable(made)

    def lie(self: Propagation, domains: Domains) -> None:
        domains.empty[:] = True

    monkeypatch.setattr(Propagation, "tighten", lie)
    stages = (*CASCADE[:4], replace(LOOK_AHEAD))
    stages = tuple(stage for stage in stages if "attack" not in stage.name and stage.name != "evaluation")
    verdict = mipverify.verify(*question(tmp_path, made), timeout=20, stages=stages)
    assert verdict.verdict != "holds"


def test_the_same_tree_and_bound_whatever_the_limit_and_the_load(tmp_path: Path) -> None:
    network, specification = question(tmp_path, formula(1, 110))
    found, busy = [], []
    try:
        for limit, others in ((60, 0), (200, 0), (60, 4)):
            busy += [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
            found.append(mipverify.verify(network, specification, timeout=limit, stages=WITHOUT_INPUT_SPLITTING))
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert {one.verdict for one in found} == {"holds"}
    assert {one.stage for one in found} == {"look-ahead"}
    assert len({(one.margin_lower_bound, one.statistics["nodes"]) for one in found}) == 1


def test_processes_share_the_nodes_and_change_no_verdict(tmp_path: Path) -> None:
    network, specification = question(tmp_path, formula(1, 110))
    verdict = mipverify.verify(network, specification, timeout=60, stages=WITHOUT_INPUT_SPLITTING, workers=2)
    assert (verdict.verdict, verdict.stage) == ("holds", "look-ahead")


def test_its_proof_is_verified(tmp_path: Path) -> None:
    network, _ = question(tmp_path, formula(1, 110))
    lines = [f"(declare-const X_{k} Real)" for k in range(VARIABLES)]
    lines += ["(declare-const Y_0 Real)", "(declare-const Y_1 Real)"]
    lines += [f"(assert (>= X_{k} 0.0))\n(assert (<= X_{k} 1.0))" for k in range(VARIABLES)]
    (tmp_path / "p.vnnlib").write_text("\n".join([*lines, "(assert (<= Y_0 0.0))", "(assert (<= Y_1 0.0))"]) + "\n")
    stages = tuple(stage for stage in RECORDED if stage.name != "input splitting")
    verdict = mipverify.verify(
        network, mipverify.load_vnnlib(tmp_path / "p.vnnlib"), timeout=60, stages=stages, proof=True
    )
    assert (verdict.verdict, verdict.stage) == ("holds", "look-ahead"), verdict.reason
    verdict.proof.save(tmp_path / "proof.npz")
    assert checker.main([str(tmp_path / name) for name in ("proof.npz", "net.onnx", "p.vnnlib")]) == 0
