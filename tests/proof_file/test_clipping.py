"""Branching within clipped bounds leaves proofs, which the independent checker accepts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mipverify.solvers.branch_and_bound.stabilization import CEILING
from mipverify_check import main as checker

import mipverify
from mipverify.engine import run
from mipverify.engine.schedule import (
    BRANCH_AND_BOUND,
    CROWN,
    CUT_SAMPLE,
    EVALUATION,
    FIRST_BRANCHING,
    FURTHER_PASSES,
    INTERVAL,
)
from mipverify.specification import robustness
from tests.checker.mutations import unpacked
from tests.proof_file.nets import dense_file

QUESTIONS = {0: 0.6, 3: 0.2, 5: 0.2, 8: 0.3}  # by seed, a radius for which branching is needed
HIDDEN = {2: 0.3, 3: 0.2, 5: 0.2}  # the same, also for signs of hidden units


@pytest.mark.parametrize("arithmetic", ["real", "float32"])
@pytest.mark.parametrize("seed", QUESTIONS)
def test_clipped_bounds_are_proven(
    seed: int, arithmetic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trees = BRANCH_AND_BOUND if seed % 2 == 0 else replace(FIRST_BRANCHING, most_work=np.inf)  # with cuts and without
    only = (EVALUATION, INTERVAL, CROWN, FIRST_BRANCHING, trees)
    monkeypatch.setattr(run, "RECORDED", only)
    network = dense_file(tmp_path / "net.onnx", [6, 16, 14, 12, 3], seed, scale=1.6)
    image = np.random.default_rng(seed).random(6)
    label = int(network.forward(image[None]).argmax())
    asked = robustness(image, label, QUESTIONS[seed], num_classes=3)
    verdict = mipverify.verify(network, asked, proof=True, timeout=120, arithmetic=arithmetic)
    assert verdict.verdict == "holds"
    assert verdict.proof is not None
    header, _ = unpacked(verdict.proof.to_bytes())
    assert any(fact["rule"] == "clip" for fact in header["facts"])
    assert any("clips" in fact for fact in header["facts"])
    verdict.proof.save(tmp_path / "proof")
    assert checker.main([str(tmp_path / "proof"), str(tmp_path / "net.onnx"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("seed", "arithmetic"), [(2, "real"), (3, "float32"), (5, "real")])
def test_clipped_bounds_of_hidden_trees_are_proven(
    seed: int, arithmetic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = replace(FURTHER_PASSES, more_than=0)
    monkeypatch.setattr(
        run, "RECORDED", (EVALUATION, INTERVAL, CROWN, CUT_SAMPLE, passes, FIRST_BRANCHING, BRANCH_AND_BOUND)
    )
    network = dense_file(tmp_path / "net.onnx", [6, 16, 14, 12, 3], seed, scale=1.6)
    image = np.random.default_rng(seed).random(6)
    label = int(network.forward(image[None]).argmax())
    asked = robustness(image, label, HIDDEN[seed], num_classes=3)
    verdict = mipverify.verify(network, asked, proof=True, timeout=120, arithmetic=arithmetic)
    assert verdict.proof is not None
    clips = [fact for fact in verdict.proof.header["facts"] if fact["rule"] == "clip" and "unit" in fact]
    assert any(fact["level"] != CEILING for fact in clips)  # rows are multiples of units, levels those of units
    verdict.proof.save(tmp_path / "proof")
    assert checker.main([str(tmp_path / "proof"), str(tmp_path / "net.onnx")]) == 0
