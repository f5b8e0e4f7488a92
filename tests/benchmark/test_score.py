"""Scores, as they come out by hand."""

from __future__ import annotations

import pytest

from mipverify.benchmark.columns import Outcome
from mipverify.benchmark.instances import find_instances
from mipverify.benchmark.others import Answer, Tool, read_tools, read_truth
from mipverify.benchmark.score import MINE, score, wrong_answers
from mipverify.errors import InputError


def outcome(index, verdict, seconds=1.0, limit=10.0, truth="", replay=None):
    replay = ("correct" if verdict == "violated" else "") if replay is None else replay
    return Outcome(
        index, "b", "onnx/n.onnx", f"vnnlib/{index}.vnnlib", "", "", verdict, seconds, limit, replay=replay, truth=truth
    )


def test_ten_instances_by_hand():
    outcomes = [
        outcome(0, "holds", 2.0),  # both right: 10, 10
        outcome(1, "violated", 1.0),  # theirs holds, ours is replayed: 10, -150
        outcome(2, "timeout", 10.0),  # theirs in time: 0, 10
        outcome(3, "holds", 3.0),  # theirs after the limit: 10, 0
        outcome(4, "error", 0.5),  # 0, 0
        outcome(5, "holds", 1.5, truth="violated"),  # known to be wrong: -150, and theirs violated, not refuted: 10
        outcome(6, "violated", 1.0, replay="the replayed witness does not meet the property"),  # -150, 0
        outcome(7, "unknown", 4.0),  # theirs without a word: 0, 0
        outcome(8, "violated", 2.5),  # both: 10, 10
        outcome(9, "holds", 0.5),  # theirs violated, no counterexample at hand, against a proof: 10, -150
    ]
    answers = {
        0: Answer("holds", 5.0),
        1: Answer("holds", 1.0),
        2: Answer("holds", 9.0),
        3: Answer("holds", 11.0),
        4: Answer("timeout", 10.0),
        5: Answer("violated", 2.0, "not given"),
        6: Answer("unknown", 1.0),
        8: Answer("violated", 4.0, "not given"),
        9: Answer("violated", 1.0, "not given"),
    }
    found = score(outcomes, [Tool("other", None, answers)])
    ours, theirs = found.standings[MINE, "b"], found.standings["other", "b"]
    assert found.standings[MINE, ""] == ours
    assert (ours.instances, ours.solved, ours.wrong, ours.score) == (10, 5, 2, 5 * 10 - 2 * 150)
    assert (theirs.instances, theirs.solved, theirs.wrong, theirs.score) == (10, 4, 2, 4 * 10 - 2 * 150)
    assert ours.counts == {"holds": 4, "violated": 3, "timeout": 1, "unknown": 1, "error": 1}
    assert ours.par2 == pytest.approx((2 + 1 + 20 + 3 + 20 + 20 + 20 + 20 + 2.5 + 0.5) / 10)
    assert theirs.par2 == pytest.approx((5 + 20 + 9 + 20 + 20 + 2 + 20 + 20 + 4 + 20) / 10)
    assert [(one.outcome.index, one.wrong) for one in found.contradictions] == [
        (1, ("other",)),
        (5, (MINE,)),
        (6, (MINE,)),
        (9, ("other",)),
    ]


def test_a_replayed_counterexample_outweighs_what_was_said_to_be_known():
    answers = {"a": Answer("violated", 1.0, "correct"), "b": Answer("holds", 1.0)}
    assert wrong_answers(answers, "holds") == ("b",)
    assert wrong_answers({"a": Answer("violated", 1.0, "not given")}, "holds") == ("a",)
    assert wrong_answers({"a": Answer("violated", 1.0, "not given")}, "") == ()
    assert wrong_answers({"a": Answer("violated", 1.0, "no witness was written")}, "violated") == ("a",)


def test_what_comes_after_the_limit_earns_nothing_and_refutes_all_the_same():
    late = Tool("slow", None, {0: Answer("violated", 20.0, "correct"), 1: Answer("holds", 20.0)})
    hasty = Tool("hasty", None, {0: Answer("holds", 1.0), 1: Answer("violated", 1.0, "not given")})
    found = score([outcome(0, "holds"), outcome(1, "timeout", 10.0)], [late, hasty])
    scores = {tool: found.standings[tool, "b"].score for tool in found.tools}
    assert scores == {MINE: -150, "slow": 0, "hasty": -300}
    assert found.standings["slow", "b"].counts["timeout"] == 2
    assert [one.wrong for one in found.contradictions] == [(MINE, "hasty"), ("hasty",)]


@pytest.fixture
def instances(make_benchmark):
    return find_instances(make_benchmark([0.5, 2, 3]))


def row(threshold, word, seconds="1.5", benchmark="tiny_2023"):
    files = f"./benchmarks/x/onnx/net.onnx,./benchmarks/x/vnnlib/above_{threshold}.vnnlib"
    return f"{benchmark},{files},0.1,{word},{seconds}\n"


def test_results_of_the_competition(instances, tmp_path):
    folder = tmp_path / "results" / "some_tool"
    (folder / "2023_tiny_2023").mkdir(parents=True)
    text = row("0.5", "sat") + row("2", "no_result_in_file") + row("3", "run_instance_timeout", "60") + row("9", "sat")
    (folder / "results.csv").write_text(text)
    for place in (folder, folder.parent, folder / "results.csv"):
        (tool,) = read_tools([str(place)], instances)
        assert (tool.name, tool.elsewhere) == ("some_tool", 1)
        assert tool.answers[0] == Answer("violated", 1.5, "not given")
        assert [tool.answers[k].verdict for k in (1, 2)] == ["unknown", "timeout"]
    witness = folder / "2023_tiny_2023" / "net_above_0.5.counterexample"
    witness.write_text("sat\n((X_0 0.75)\n(X_1 0.1)\n(Y_0 0)\n(Y_1 0))\n")
    assert read_tools([str(folder)], instances)[0].answers[0].witness == "correct"
    witness.write_text("((X_0 0.25)\n(X_1 0.1)\n(Y_0 1)\n(Y_1 0))\n")
    assert "does not meet" in read_tools([str(folder)], instances)[0].answers[0].witness


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (row("2", "perhaps"), "line 1: 'perhaps' is no result"),
        (row("2", "sat", "soon"), "line 1: 'soon' is no time"),
        (row("2", "sat").rsplit(",", 1)[0], "line 1: six columns"),
        (row("2", "sat") + row("2", "sat"), "line 2: a second answer"),
        (row("9", "sat"), "none of its 1 rows"),
        (row("2", "sat", benchmark="acasxu"), "none of its 1 rows"),
        ("", "none of its 0 rows"),
    ],
)
def test_wrong_results_are_named(instances, tmp_path, text, named):
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=named):
        read_tools([str(path)], instances)


def test_known_verdicts(instances, tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text(
        "onnx,vnnlib,verdict\nonnx/net.onnx,vnnlib/above_2.vnnlib,unsat\nonnx/net.onnx,vnnlib/q.vnnlib,sat\n"
    )
    assert read_truth(str(path), instances) == {1: "holds"}
    path.write_text(row("0.5", "sat") + row("3", "timeout"))
    assert read_truth(str(path), instances) == {0: "violated"}
    for text in (row("2", "perhaps"), "onnx,vnnlib,verdict\n", row("2", "timeout")):
        path.write_text(text)
        with pytest.raises(InputError, match=r"truth\.csv"):
            read_truth(str(path), instances)
