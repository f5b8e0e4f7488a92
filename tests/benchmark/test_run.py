"""The command as users run it: results of processes, resumed after kill -9, beside other tools."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mipverify.benchmark.run import BenchmarkLimits, run_benchmark
from mipverify.cli.main import main
from mipverify.errors import InputError
from tests.benchmark.conftest import write_network


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "outcomes.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_that_comes_out(make_benchmark, tmp_path, capfd):
    folder, out = make_benchmark([0.5, 2]), tmp_path / "run"
    assert main(["benchmark", str(folder), "--out", str(out), "--json"]) == 0
    shown = capfd.readouterr()
    ours = json.loads(shown.out)["standings"]["all"]["mipverify"]
    assert (ours["solved"], ours["violated"], ours["holds"], ours["score"]) == (2, 1, 1, 20)
    assert "1/2  violated" in shown.err
    first, second = rows(out)
    assert (first["verdict"], first["replay"], second["verdict"]) == ("violated", "correct", "holds")
    with (out / "results.csv").open(newline="") as file:
        assert [row[:3] + row[4:5] for row in csv.reader(file)] == [
            ["tiny", "onnx/net.onnx", "vnnlib/above_0.5.vnnlib", "sat"],
            ["tiny", "onnx/net.onnx", "vnnlib/above_2.vnnlib", "unsat"],
        ]
    witness = (out / "counterexamples" / "tiny" / "net_above_0.5.counterexample").read_text()
    assert "(X_1 0.1)" in witness, "the stated decimal, which is no float32"
    assert json.loads((out / "summary.json").read_text())["contradictions"] == []
    assert (out / "benchmark.html").is_file()


def test_nothing_runs_twice_and_other_selections_add_to_it(make_benchmark, tmp_path, capfd):
    folder, out = make_benchmark([0.5, 2, 3]), tmp_path / "run"
    assert main(["benchmark", str(folder), "--out", str(out), "--match", "above_2"]) == 0
    assert main(["benchmark", str(folder), "--out", str(out), "--every", "2"]) == 0
    assert [row["index"] for row in rows(out)] == ["0", "2"]
    capfd.readouterr()
    assert main(["benchmark", str(folder), "--out", str(out)]) == 0
    assert "/3" not in capfd.readouterr().err
    assert [row["index"] for row in rows(out)] == ["0", "1", "2"]


def test_what_was_finished_is_kept_by_kill_9(make_benchmark, tmp_path):
    folder, out = make_benchmark([2, 3, 4, 5, 6, 7]), tmp_path / "run"
    command = [sys.executable, "-P", "-m", "mipverify", "benchmark", str(folder), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("1/6"), line
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while (left := children_of(str(folder))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == [], "processes of instances end with the run"
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first = done.stderr.splitlines()[0]
    assert not first.startswith("1/6"), "what was finished did not run again"
    assert [row["verdict"] for row in rows(out)] == ["holds"] * 6


def children_of(word: str) -> list[str]:
    """Processes of instances below a folder, on systems where /proc tells."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if word in text and "verify" in text and path.parent.name != str(os.getpid()):
            found.append(text.replace("\0", " "))
    return found


def test_an_instance_that_cannot_be_read_is_an_error_and_the_others_run(make_benchmark, tmp_path):
    folder, out = make_benchmark([0.5, 2]), tmp_path / "run"
    (folder / "vnnlib" / "above_2.vnnlib").write_text("(assert (>= Y_0 (sin X_0)))\n")
    assert main(["benchmark", str(folder), "--out", str(out), "--quiet"]) == 0
    first, second = rows(out)
    assert (first["verdict"], second["verdict"]) == ("violated", "error")
    assert "sin" in second["reason"]
    again = []
    run_benchmark(str(folder), out=str(out), limits=BenchmarkLimits(), progress=lambda *told: again.extend(told[2]))
    assert [one.index for one in again] == [1], "an error may be mended by now"


def test_a_damaged_network_costs_no_other_instance(make_benchmark, tmp_path):
    folder, out = make_benchmark([0.5]), tmp_path / "run"
    (folder / "onnx" / "broken.onnx").write_bytes(b"no network")
    with (folder / "instances.csv").open("a") as file:
        file.write("onnx/broken.onnx,vnnlib/above_0.5.vnnlib,5\n")
    assert main(["benchmark", str(folder), "--out", str(out), "--quiet"]) == 0
    first, second = rows(out)
    assert (first["verdict"], second["verdict"]) == ("violated", "error")
    assert "not an ONNX model" in second["reason"]


def test_an_undecided_instance_runs_again_with_a_longer_limit(make_benchmark, tmp_path):
    folder, out = make_benchmark([2]), tmp_path / "run"
    result = run_benchmark(str(folder), out=str(out), limits=BenchmarkLimits(cap=0.01))
    assert [one.verdict for one in result.outcomes] == ["timeout"]
    assert result.scores.standings["mipverify", ""].par2 == pytest.approx(0.02)
    again = run_benchmark(str(folder), out=str(out), limits=BenchmarkLimits())
    assert [(one.verdict, one.limit) for one in again.outcomes] == [("holds", 20.0)]


def test_files_that_have_changed_since_are_refused(make_benchmark, tmp_path):
    folder, out = make_benchmark([2, 3]), tmp_path / "run"
    run_benchmark(str(folder), out=str(out), limits=BenchmarkLimits(), match="above_2")
    write_network(folder / "onnx" / "net.onnx", shift=5.0)
    with pytest.raises(InputError, match="another network"):
        run_benchmark(str(folder), out=str(out), limits=BenchmarkLimits())
    write_network(folder / "onnx" / "net.onnx")
    with (folder / "instances.csv").open("a") as file:
        file.write("onnx/net.onnx,vnnlib/above_2.vnnlib,5\n")
    with pytest.raises(InputError, match="other instances"):
        run_benchmark(str(folder), out=str(out), limits=BenchmarkLimits())


def test_a_wrong_answer_of_ours_is_a_fault_of_the_program(make_benchmark, tmp_path, capfd):
    folder, out = make_benchmark([2]), tmp_path / "run"
    truth = tmp_path / "truth.csv"
    truth.write_text("onnx,vnnlib,verdict\nonnx/net.onnx,vnnlib/above_2.vnnlib,sat\n")
    assert main(["benchmark", str(folder), "--out", str(out), "--truth", str(truth)]) == 4
    shown = capfd.readouterr()
    assert "contradiction  onnx/net.onnx vnnlib/above_2.vnnlib: mipverify holds, known violated" in shown.out


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--cap", "0"], "--cap"),
        (["--cap", "nan"], "--cap"),
        (["--workers", "0"], "--workers"),
        (["--solver", "none"], "--solver"),
        (["--memory", "much"], "--memory"),
        (["--against", "nowhere"], "--against nowhere"),
        (["--truth", "nowhere"], "nowhere"),
        (["--match", "nothing"], "--match"),
        (["--every", "0"], "--every"),
    ],
)
def test_bad_usage_is_named_before_anything_runs(make_benchmark, tmp_path, capfd, options, named):
    out = tmp_path / "run"
    assert main(["benchmark", str(make_benchmark([2])), "--out", str(out), *options]) == 2
    error = capfd.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_outputs_never_replace_what_is_read(make_benchmark, tmp_path, capfd):
    folder = make_benchmark([2])
    results = folder / "results.csv"
    results.write_text("tiny,onnx/net.onnx,vnnlib/above_2.vnnlib,0,unsat,1\n")
    assert main(["benchmark", str(folder), "--out", str(folder), "--against", str(results)]) == 2
    assert "would overwrite" in capfd.readouterr().err
    assert main(["benchmark", str(folder)]) == 2


@pytest.mark.slow
def test_on_dask(make_benchmark, tmp_path):
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    limits = BenchmarkLimits(workers=2, cluster="local")
    result = run_benchmark(str(make_benchmark([0.5, 2, 3])), out=str(tmp_path / "run"), limits=limits)
    assert [one.verdict for one in result.outcomes] == ["violated", "holds", "holds"]


def test_the_example() -> None:
    example = Path(__file__).parents[2] / "examples" / "benchmark.py"
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, check=True)
    assert "hasty: 1 solved, 1 wrong, score -140" in done.stdout
    assert "hasty is wrong about vnnlib/low.vnnlib: correct counterexample" in done.stdout


def test_networks_by_name_in_any_order_equal_ones_and_outputs_of_one(tmp_path):
    """What was verified is what was asked about, however a list names the networks and the property declares them."""
    write_network(tmp_path / "a.onnx")
    write_network(tmp_path / "b.onnx", shift=1.0)
    declared = "(declare-network {} {} (declare-input X{} Real [1,2]) (declare-output Y{} Real [1,2]))"
    ranges = "(>= X{0}[0,0] 0.0) (<= X{0}[0,0] 1.0) (>= X{0}[0,1] 0.0) (<= X{0}[0,1] 1.0)"

    def prop(name: str, second: str, threshold: float) -> None:
        lines = ["(vnnlib-version <2.0>)", declared.format("f", "", "f", "f")]
        lines += [declared.format("g", second, "g", "g"), f"(assert (and {ranges.format('f')} {ranges.format('g')}))"]
        (tmp_path / name).write_text("\n".join([*lines, f"(assert (>= Yf[0,0] (+ Yg[0,0] {threshold})))"]))

    prop("two.vnnlib", "", 0.5)
    prop("equal.vnnlib", "(equal-to f)", 0.5)
    one = declared.format("f", "", "f", "f")
    asserted = f"(assert (and {ranges.format('f')}))\n(assert (>= Yf[0,0] 2.0))"
    (tmp_path / "one.vnnlib").write_text(f"(vnnlib-version <2.0>)\n{one}\n{asserted}")
    with (tmp_path / "instances.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["[('g', 'b.onnx'), ('f', 'a.onnx')]", "two.vnnlib", 20])
        writer.writerow(["[('f', 'a.onnx')]", "equal.vnnlib", 20])
        writer.writerow(["a.onnx", "equal.vnnlib", 20])
        writer.writerow(["[('f', 'a.onnx')]", "one.vnnlib", 20])
    assert main(["benchmark", str(tmp_path / "instances.csv"), "--out", str(tmp_path / "run")]) == 0
    found = [(row["verdict"], row["replay"]) for row in rows(tmp_path / "run")]
    assert found == [("holds", ""), ("violated", "correct"), ("violated", "correct"), ("holds", "")]
