"""Several radii in one run: what follows from what, which radius is asked about next, and what the run leaves."""

from __future__ import annotations

import csv
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import mipverify
from mipverify.cli.main import main
from mipverify.cluster import SampleJob
from mipverify.engine.sample import OPEN, SampleResult
from mipverify.errors import InputError
from mipverify.report.radii import ContradictionError, Ladder
from mipverify.report.store import read_run

RADII = ("0.05", "0.1", "0.2", "0.3")
# The network says class 0 where x0 > 1/2, so that a sample with x0 = 1/2 + d is right up to a radius below d.
DISTANCES = (0.02, 0.07, 0.15, 0.25, 0.45)


def network_in(tmp_path: Path) -> str:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3, 2], [1.0, -1.0, 0.0, 0.0, 0.0, 0.0])
    bias = helper.make_tensor("b", TensorProto.FLOAT, [2], [-0.5, 0.5])
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [weight, bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")
    return str(tmp_path / "net.onnx")


def images_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples with each distance in turn, the last one of every six misclassified."""
    images = np.full((count, 3), 0.5, np.float32)
    kinds = [*DISTANCES, -0.1]
    images[:, 0] += np.array([kinds[k % len(kinds)] for k in range(count)], np.float32)
    return images, np.zeros(count, int)


def data_in(tmp_path: Path) -> str:
    images, labels = images_of(24)
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    return str(tmp_path / "data.npz")


@pytest.fixture
def network(tmp_path: Path) -> str:
    return network_in(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> str:
    return data_in(tmp_path)


def expected(count: int, eps: str) -> list[str]:
    kinds = ["holds" if float(eps) < d else "violated" for d in DISTANCES] + ["misclassified"]
    return [kinds[k % len(kinds)] for k in range(count)]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def answer(index: int, verdict: str, eps: str, **more: object) -> SampleResult:
    return SampleResult(index, 0, 0, verdict, "crown", 1.0, eps=eps, **more)  # type: ignore[arg-type]


# ---- what follows from what ----


def test_every_order_of_answers_leads_to_the_truth() -> None:
    """Whatever batches leave open, each sample ends decided, and no question is asked whose answer was known."""
    radii, chance = RADII, random.Random(1)
    for critical, left_open in itertools.product(range(len(radii) + 1), range(2 ** len(radii))):
        ladder, asked = Ladder(radii), []
        pending = ladder.first([7])
        while pending:
            (index,) = pending
            place = index - 7 * len(radii)
            cheap = index not in asked
            asked.append(index)
            assert ladder.at(7, place) is None, "its answer followed from another one"
            truth = "holds" if place < critical else "violated"
            if cheap and left_open >> place & 1:
                pending = ladder.after(answer(index, "unknown", radii[place], reason=OPEN))
                continue
            said = radii[place]
            if truth == "violated":  # it may lie within a smaller radius than the one that was asked about
                said = radii[chance.randint(critical, place)]
            pending = ladder.after(answer(index, truth, said))
        found = ladder.verdicts(7)
        assert found == tuple("holds" if place < critical else "violated" for place in range(len(radii)))
        work = [index for index in asked if asked.count(index) > 1]
        assert len(set(work)) <= len(radii)


def test_one_proof_at_the_largest_radius_is_all_that_a_robust_sample_costs() -> None:
    ladder = Ladder(RADII)
    (index,) = ladder.first([0])
    assert index == 3
    assert ladder.after(answer(index, "holds", "0.3", margin_lower_bound=0.5)) == []
    rows = [row for (row,) in ladder.rows([0])]
    assert [(row.eps, row.decided_at, row.seconds) for row in rows] == [
        ("0.05", "0.3", 0.0),
        ("0.1", "0.3", 0.0),
        ("0.2", "0.3", 0.0),
        ("0.3", "", 1.0),
    ]
    assert all(row.margin_lower_bound == 0.5 for row in rows)


def test_an_undecided_radius_stays_so_between_what_is_known() -> None:
    ladder = Ladder(RADII)
    for place, verdict in enumerate(("holds", "unknown", "unknown", "violated")):
        ladder.learn(0, answer(0, verdict, RADII[place]))
    assert ladder.verdicts(0) == ("holds", "unknown", "unknown", "violated")
    assert ladder.first([0]) == []


def test_a_contradiction_is_never_passed_over() -> None:
    for holds, violated in (("0.2", "0.1"), ("0.1", "0.1")):
        ladder = Ladder(RADII)
        ladder.learn(0, answer(0, "holds", holds))
        with pytest.raises(ContradictionError, match=f"holds at {holds} and is violated at {violated}"):
            ladder.learn(0, answer(0, "violated", violated))


# ---- whole runs ----


@pytest.mark.parametrize("workers", [0, 2])
def test_a_curve_agrees_with_the_truth_and_with_single_runs(network: str, tmp_path: Path, workers: int) -> None:
    images, labels = images_of(24)
    curve = mipverify.adversarial_accuracy(
        network, images, labels, [0.3, "0.05", "1e-1", 0.2], workers=workers, out=tmp_path / "run"
    )
    assert isinstance(curve, mipverify.AccuracyCurve)
    assert curve.radii == RADII
    for eps in RADII:
        point = curve.at(float(eps))
        alone = mipverify.adversarial_accuracy(network, images, labels, eps, workers=0)
        assert [s.verdict for s in point.samples] == expected(24, eps) == [s.verdict for s in alone.samples]
        assert [s.index for s in point.samples] == list(range(24))
        assert point.summary["adversarial_error"] == alone.summary["adversarial_error"]
        for sample in point.samples:
            if sample.verdict == "violated":
                assert sample.adversarial is not None
                assert abs(np.float64(sample.adversarial) - np.float64(images[sample.index])).max() <= float(eps)
    assert sum(s.seconds > 0 for s in curve.samples) < 24 * len(RADII)
    with pytest.raises(InputError, match=r"no point at 0\.25: it has 0\.05, 0\.1"):
        curve.at("0.25")
    frame = pytest.importorskip("pandas") and curve.to_dataframe()
    assert list(frame.index) == list(RADII)
    assert "AccuracyCurve(24 samples" in repr(curve)
    assert "adversarial error at 0.2" in curve._repr_html_()


def test_tables_and_summary_agree(network: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    command = ["report", network, "--data", data, "--out", str(run), "--workers", "0", "--json"]
    assert main([*command, "--eps", "0.2,0.05,1/10,0.30"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((run / "summary.json").read_text())
    assert said["eps"] == list(RADII)
    rows, points = rows_of(run / "samples.csv"), rows_of(run / "curve.csv")
    assert len(rows) == 4 * 24
    for eps, point, summary in zip(RADII, points, said["radii"], strict=True):
        here = [row for row in rows if row["eps"] == eps]
        assert [row["verdict"] for row in here] == expected(24, eps)
        assert all((float(row["decided_at"]) >= float(eps)) for row in here if row["verdict"] == "holds")
        assert all((float(row["decided_at"]) <= float(eps)) for row in here if row["verdict"] == "violated")
        right = sum(row["verdict"] == "holds" for row in here) / 24
        assert float(point["adversarial_accuracy_lower"]) == float(point["adversarial_accuracy_upper"]) == right
        assert int(point["asked"]) == sum(row["decided_at"] == eps for row in here)
        assert summary["eps"] == point["eps"] == eps
        assert summary["holds"] == int(point["holds"])
    accuracy = [float(point["adversarial_accuracy_lower"]) for point in points]
    assert accuracy == sorted(accuracy, reverse=True)
    assert main([*command[:-1], "--eps", "0.05,0.1,0.2,0.3"]) == 0
    assert re.search(r"^0\.2 +66\.67% +8 +12 +0 ", capsys.readouterr().out, re.MULTILINE)


def test_a_finished_curve_is_not_run_again(
    network: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["report", network, "--data", data, "--out", str(tmp_path / "run"), "--workers", "0", "-q"]
    assert main([*command, "--eps", "0.05,0.1"]) == 0

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("nothing was left to run")

    monkeypatch.setattr("mipverify.report.run.open_executor", fail)
    assert main([*command, "--eps", "0.1,0.05"]) == 0


def test_what_a_folder_is_about_cannot_change(
    network: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["report", network, "--data", data, "--workers", "0", "-q"]
    assert main([*command, "--eps", "0.05,0.1", "--out", str(tmp_path / "curve")]) == 0
    assert main([*command, "--eps", "0.1", "--out", str(tmp_path / "one")]) == 0
    before = (tmp_path / "one" / "samples.csv").read_bytes()
    for eps, folder, said in (
        ("0.1", "curve", "another eps (0.05,0.1)"),
        ("0.05,0.2", "curve", "another eps (0.05,0.1)"),
        ("0.05,0.1", "one", "another eps (0.1)"),
    ):
        capsys.readouterr()
        assert main([*command, "--eps", eps, "--out", str(tmp_path / folder)]) == 2
        assert said in capsys.readouterr().err
    assert (tmp_path / "one" / "samples.csv").read_bytes() == before
    assert main([*command, "--eps", "0.1", "--out", str(tmp_path / "one")]) == 0
    assert main(["report", "--compare", str(tmp_path / "one"), str(tmp_path / "curve")]) == 2
    assert "several radii" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("eps", "said"),
    [
        ("0.1,0.10", "--eps names the radius 0.1 twice"),
        ("0.1,-0.2", "--eps must be a number that is not negative, not '-0.2'"),
        ("0.1,", "--eps"),
        ("0.1,many", "--eps must be a finite number such as 0.1 or 8/255, not 'many'"),
    ],
)
def test_bad_radii(
    network: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], eps: str, said: str
) -> None:
    out = tmp_path / "run"
    assert main(["report", network, "--data", data, "--eps", eps, "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line
    assert not out.exists()
    with pytest.raises(InputError, match="at least one radius"):
        mipverify.adversarial_accuracy(network, *images_of(2), eps=[])


SLOW = """
import time
import mipverify.engine.batch as batch
real = batch.verify_batch
def verify_batch(*args, **options):
    for result in real(*args, **options):
        time.sleep(0.03)
        yield result
"""


def test_nothing_is_lost_when_a_curve_is_killed(network: str, data: str, tmp_path: Path) -> None:
    (tmp_path / "slow_verifier.py").write_text(SLOW)
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from mipverify.report.run import Limits, run_report
run_report({network!r}, {data!r}, "0.05,0.1,0.2,0.3", out={str(tmp_path / "run")!r},
           limits=Limits(workers=0, verifier="slow_verifier:verify_batch"))
"""
    seen: dict[tuple[int, str], str] = {}
    for delay in (1.6, 2.0, None):
        with subprocess.Popen([sys.executable, "-c", script], env=os.environ) as process:
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        if (tmp_path / "run" / "results.sqlite").exists():
            _, samples, _ = read_run(tmp_path / "run")
            found = {(s.index, s.eps): s.verdict for s in samples}
            assert seen.items() <= found.items()
            seen = found
        time.sleep(0.1)
    rows = rows_of(tmp_path / "run" / "samples.csv")
    for eps in RADII:
        assert [row["verdict"] for row in rows if row["eps"] == eps] == expected(24, eps)


def test_undecided_radii_are_an_interval_and_can_be_tried_again(
    network: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mipverify.engine.batch as batch

    real, tired = batch.verify_batch, True

    def verify_batch(*args: object, **options: object) -> Iterator[SampleResult]:
        for result in real(*args, **options):  # type: ignore[arg-type]
            hard = tired and args[3] == "0.2" and result.verdict == "holds"
            yield replace(result, verdict="unknown", reason="time") if hard else result

    monkeypatch.setattr(batch, "verify_batch", verify_batch)
    run = tmp_path / "run"
    command = ["report", network, "--data", data, "--out", str(run), "--workers", "0", "-q"]
    assert main([*command, "--eps", "0.1,0.2,0.3"]) == 0
    points = {point["eps"]: point for point in rows_of(run / "curve.csv")}
    # Of the samples that hold at 0.2, a sixth holds at 0.3, which says it of 0.2.
    assert [points["0.2"][name] for name in ("holds", "unknown")] == ["4", "4"]
    assert float(points["0.2"]["adversarial_accuracy_lower"]) == pytest.approx(4 / 24)
    assert float(points["0.2"]["adversarial_accuracy_upper"]) == pytest.approx(8 / 24)
    tired = False
    assert main([*command, "--eps", "0.1,0.2,0.3", "--retry", "unknown"]) == 0
    points = {point["eps"]: point for point in rows_of(run / "curve.csv")}
    assert [points["0.2"][name] for name in ("holds", "unknown")] == ["8", "0"]


def test_proofs_of_a_curve_are_checked(
    network: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = ["report", network, "--data", data, "--out", str(run), "--workers", "0", "-q", "--proofs"]
    assert main([*command, "--eps", "0.05,1/3", "--samples", "0:6"]) == 0
    kept = sorted(path.name for path in (run / "proofs").iterdir())
    assert kept == ["000001-0.05.npz", "000002-0.05.npz", "000003-0.05.npz", "000004-1_3.npz"]
    capsys.readouterr()
    assert main(["check", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] == 4
    rows = rows_of(run / "samples.csv")
    assert [row["proof_state"] for row in rows if row["index"] == "4"] == ["verified"] * 2
    # A proof about a smaller radius is none about a larger one.
    (run / "proofs" / "000004-1_3.npz").write_bytes((run / "proofs" / "000003-0.05.npz").read_bytes())
    assert main(["check", str(run)]) == 1
    assert "sample 4: rejected: it is about another eps" in capsys.readouterr().out


def test_witnesses_are_reported_where_they_lie(network: str) -> None:
    """A counterexample that was found within 0.3 may lie within 0.1."""
    images, labels = images_of(1)
    job = SampleJob(
        mipverify.load(network), mipverify.specification.dataset.Dataset(images, labels, "m", "m"), RADII, 1.0
    )
    runner = job.runner()
    near = images[0] - np.array([0.08, 0, 0], np.float32)
    found = SampleResult(3, 0, 0, "violated", "attack", 0.0, adversarial=near, adversarial_label=1)
    assert RADII[runner._least(found, 3)] == "0.1"


def test_axes_of_matplotlib(network: str) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    curve = mipverify.adversarial_accuracy(network, *images_of(12), eps=RADII, workers=0)
    line = curve.plot_curve().get_lines()[0]
    assert list(line.get_xdata()) == [0.0, *map(float, RADII)]
    assert list(line.get_ydata()) == pytest.approx([10 / 12, 8 / 12, 6 / 12, 4 / 12, 2 / 12])
