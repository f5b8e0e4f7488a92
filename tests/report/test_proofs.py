"""A report keeps a proof of each sample that holds, also of those that an earlier start had decided without."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from mipverify.report.run import AccuracyResult, Limits, run_report

ZOO = Path(__file__).parents[2] / "models" / "zoo"
NETWORK, DATA = str(ZOO / "mnist_small_linf0.1.onnx"), str(ZOO / "mnist_100.npz")


def run(out: Path, *, proofs: bool, eps: str = "0.1") -> AccuracyResult:
    limits = Limits(timeout=60, workers=0, proofs=proofs)
    return run_report(NETWORK, DATA, eps, out=str(out), limits=limits, samples="0:12")


def kept(out: Path) -> dict[int, dict]:
    """The headers of the proofs of a run, by sample."""
    found = {}
    for path in (out / "proofs").glob("*"):
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as members:
            found[int(path.stem)] = json.loads(members["header"].tobytes())
    return found


def test_each_sample_that_holds_has_a_proof_of_its_own_question(tmp_path: Path) -> None:
    result = run(tmp_path, proofs=True)
    headers = kept(tmp_path)
    assert set(headers) == {sample.index for sample in result.samples if sample.verdict == "holds"}
    assert len(headers) > 5
    for sample in result.samples:
        if sample.verdict == "holds":
            question = headers[sample.index]["question"]
            assert (question["label"], question["eps"], question["data"]) == (
                sample.label,
                "0.1",
                {"index": sample.index},
            )
            assert len(question["targets"]) == 9


def test_proofs_are_made_up_for(tmp_path: Path) -> None:
    before = run(tmp_path, proofs=False)
    assert not (tmp_path / "proofs").exists()
    after = run(tmp_path, proofs=True)
    assert [s.verdict for s in after.samples] == [s.verdict for s in before.samples]
    assert set(kept(tmp_path)) == {sample.index for sample in after.samples if sample.verdict == "holds"}


def test_a_proof_that_was_lost_is_made_again(tmp_path: Path) -> None:
    run(tmp_path, proofs=True)
    paths = sorted((tmp_path / "proofs").glob("*"))
    content = paths[0].read_bytes()
    paths[0].unlink()
    run(tmp_path, proofs=True)
    assert paths[0].read_bytes() == content


def test_proofs_of_an_earlier_question_are_none_of_this_one(tmp_path: Path) -> None:
    """Who removes the results begins anew, and may forget the folder beside them."""
    run(tmp_path, proofs=True, eps="0.01")
    (tmp_path / "results.sqlite").unlink()
    run(tmp_path, proofs=False)
    assert kept(tmp_path) == {}
    result = run(tmp_path, proofs=True)
    headers = kept(tmp_path)
    assert set(headers) == {sample.index for sample in result.samples if sample.verdict == "holds"}
    assert {header["question"]["eps"] for header in headers.values()} == {"0.1"}
