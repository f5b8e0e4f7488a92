"""The demo shows what the package is for: every kind of decision, a counterexample, and proofs that are checked."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.mark.skipif(not (BIN / "mipverify").exists(), reason="the command is not installed beside this interpreter")
def test_the_demo_decides_in_every_way(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = subprocess.run(
        [ROOT / "scripts" / "demo", out],
        env={**os.environ, "BIN": str(BIN)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (out / "samples.csv").open() as file:
        samples = list(csv.DictReader(file))
    decided = {(sample["verdict"], sample["stage"]) for sample in samples}
    assert len(samples) == 100
    assert {("holds", "fast-lin"), ("holds", "first branching"), ("holds", "milp"), ("violated", "attack")} <= decided
    assert not [verdict for verdict, _ in decided if verdict == "unknown"]
    proofs = [sample for sample in samples if int(sample["index"]) < 40 and sample["verdict"] == "holds"]
    assert {sample["proof_state"] for sample in proofs} == {"verified"}
    assert any(sample["trusted"] for sample in samples if sample["stage"] == "milp")
    assert json.loads((out / "summary.json").read_text())["unknown"] == 0
    assert "violated  (attack" in done.stdout
    assert (out / "counterexample.txt").stat().st_size > 1000
    assert (out / "report.html").exists()
