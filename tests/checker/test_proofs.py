"""Proofs are verified, and rejected where they do not show what they claim."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from mipverify_check import main

from tests.checker.examples import (
    EXAMPLES,
    VIOLATED,
    Example,
    about_an_image,
    about_radii,
    by_boxes,
    by_clips,
    by_cuts,
    by_hidden_clips,
    by_passes,
    by_phases,
    started,
)
from tests.checker.making import Writer, below, dense, model, property_text, vnnlib_question


def outcome(found: Example, folder: Path, *options: str) -> int:
    """The exit code of the checker."""
    paths = [found.save(folder / "proof"), found.network, *([found.property] if found.property else [])]
    return main.main([*map(str, paths), *options])


@pytest.mark.parametrize("options", [[], ["--exact"]], ids=["floats", "exact"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_proof_is_verified(name: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(EXAMPLES[name](tmp_path), tmp_path, *options) == 0
    assert capsys.readouterr().out.startswith("verified: ")


@pytest.mark.parametrize("options", [[], ["--exact"]], ids=["floats", "exact"])
@pytest.mark.parametrize("build", [by_passes, by_phases, by_cuts, by_clips, by_hidden_clips, by_boxes])
def test_the_same_steps_do_not_prove_more_than_is_true(build, options: list[str], tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert outcome(build(tmp_path, VIOLATED), tmp_path, *options) == 1
    assert capsys.readouterr().out.startswith("rejected: fact ")


def test_a_bound_that_is_reached_is_proven_up_to_rounding_and_no_further(tmp_path: Path) -> None:
    """The least value of a linear network on a box is known: 1e-6 above it, relative, nothing is verified."""
    weights = np.array([[3.0], [-2.0]], np.float32)
    network = tmp_path / "net.onnx"
    onnx.save(model([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weights}, [1, 2]), network)
    for level, code in (("-5.000001", 0), ("-4.999995", 1)):  # 3 x - 2 y on [-1, 1]^2 comes down to -5
        asked = tmp_path / "p.vnnlib"
        asked.write_text(property_text(2, 1, [("-1", "1")] * 2, f"(<= Y_0 {level})"))
        writer = Writer(network, vnnlib_question(asked))
        writer.case([[-1, 1]] * 2, [below(0, level)])
        writer.fact("interval", case=0)
        writer.fact("exclude", of=0, conditions=writer.array([0], np.uint8), lines="interval")
        assert outcome(Example(network, asked, writer), tmp_path) == code


def test_a_tie_is_no_proof_unless_the_condition_excludes_it(tmp_path: Path) -> None:
    network, asked = tmp_path / "net.onnx", tmp_path / "p.vnnlib"
    onnx.save(model([onnx.helper.make_node("Relu", ["x"], ["y"])], {}, [1, 1]), network)
    for relation, strict, code in (("<=", False, 1), ("<", True, 0)):
        asked.write_text(property_text(1, 1, [("-1", "1")], f"({relation} Y_0 0)"))
        for option in ([], ["--exact"]):
            writer = Writer(network, vnnlib_question(asked))
            writer.case([[-1, 1]], [[{"outputs": [[0, "1"]], "offset": "0", "strict": strict}]])
            writer.fact("interval", case=0)
            writer.fact("exclude", of=0, conditions=writer.array([0], np.uint8), lines="interval")
            expected = code if option else 1  # in floats nothing is exactly zero
            assert outcome(Example(network, asked, writer), tmp_path, *option) == expected


def rejected(found: Example, folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    assert outcome(found, folder) == 1
    text = capsys.readouterr().out
    assert text.startswith("rejected: ")
    assert all(word in text for word in words), text


def test_another_network_or_property_is_not_what_was_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = by_passes(tmp_path)
    assert found.property is not None
    found.property.write_text(found.property.read_text() + "\n")
    rejected(found, tmp_path, capsys, "another property")
    found = by_passes(tmp_path)
    onnx.save(dense(np.random.default_rng(2), [3, 8, 8, 2]), found.network)
    rejected(found, tmp_path, capsys, "another network")


def test_cases_must_cover_the_property(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = by_passes(tmp_path)
    found.writer.header["cases"][0]["box"] = found.writer.packed(
        [[-0.5, 0.5], [-0.5, 0.5], [-0.5, np.nextafter(0.5, 0)]]
    )
    rejected(found, tmp_path, capsys, "covers")
    found = by_passes(tmp_path)
    found.writer.header["cases"][0]["conditions"] = [below(0, "0.09999")]
    rejected(found, tmp_path, capsys, "covers")
    found = by_passes(tmp_path)
    found.writer.header["cases"][0]["region"] = {
        "norm": "l2",
        "center": found.writer.packed([0, 0, 0]),
        "scale": found.writer.packed([1, 1, 1]),
        "radius": "1",
    }
    rejected(found, tmp_path, capsys, "covers")


def test_an_image_is_covered_by_what_its_question_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rejected(about_an_image(tmp_path, "1/7"), tmp_path, capsys, "box")
    found = about_an_image(tmp_path)
    found.writer.header["question"]["targets"] = [0]
    rejected(found, tmp_path, capsys, "conditions")
    found = about_an_image(tmp_path)
    found.writer.header["question"]["label"] = 1
    rejected(found, tmp_path, capsys, "conditions")


def test_targets_may_be_excluded_within_larger_radii_but_not_within_smaller_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rejected(about_radii(tmp_path, "1/15"), tmp_path, capsys, "box")
    for missing in (0, 1):
        found = about_radii(tmp_path)
        cases = found.writer.header["cases"]
        cases[missing]["conditions"] = cases[1 - missing]["conditions"]
        rejected(found, tmp_path, capsys, "conditions")
    found = about_radii(tmp_path)
    found.writer.header["cases"] = []
    rejected(found, tmp_path, capsys, "conditions")


def test_every_condition_must_be_excluded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = by_phases(tmp_path)
    del found.writer.header["facts"][-1]
    rejected(found, tmp_path, capsys, "never excluded")


@pytest.mark.parametrize(
    "tree",
    [
        [[0, 0], [-1, -1]],
        [[0, 0], [-1, -1], [-1, -1], [-1, -1]],
        [[-1, 0]],
        [[-2, -1]],
        [[0, 8], [-1, -1], [-1, -1]],
        [[2, 0], [-1, -1], [-1, -1]],
    ],
)
def test_a_tree_must_be_one(tree: list[list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = started(tmp_path)
    found.writer.fact("phases", of=0, condition=0, tree=found.writer.array(tree, np.int8))
    rejected(found, tmp_path, capsys, "fact 1")


@pytest.mark.parametrize(
    ("axis", "at", "closed"),
    [
        ([0, -1], [0.0, 0.0], [[1, 0]]),
        ([0, -1, -1, -1], [0.0] * 4, [[1, 0], [2, 0], [3, 0]]),
        ([0, -1, -1], [0.0] * 3, [[1, 0]]),
        ([0, -1, -1], [0.7, 0.0, 0.0], [[1, 0], [2, 0]]),
        ([3, -1, -1], [0.0] * 3, [[1, 0], [2, 0]]),
        ([0, -1, -1], [0.0] * 3, [[1, 0], [3, 0]]),
    ],
)
def test_boxes_must_cover_the_box(
    axis: list[int], at: list[float], closed: list[list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = started(tmp_path, "-100")
    writer = found.writer
    writer.fact(
        "boxes",
        of=0,
        conditions=writer.array([0], np.uint8),
        axis=writer.array(axis, np.int8),
        at=writer.array(at, np.float64),
        closed=writer.array(closed, np.uint8),
        sites=[],
    )
    rejected(found, tmp_path, capsys, "fact 1")


def test_a_fact_rests_on_earlier_facts_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for premise in (1, 2, -1, 10**30, "0", None, [0]):
        found = by_passes(tmp_path)
        found.writer.header["facts"][1]["of"] = premise
        rejected(found, tmp_path, capsys, "fact 1")


@pytest.mark.parametrize("options", [[], ["--exact"]], ids=["floats", "exact"])
def test_phases_of_inputs_cut_the_box(options: list[str], tmp_path: Path) -> None:
    """2 relu(x) - x + c is above c - 0.001, as is seen in both halves of the box alone."""
    network, asked = tmp_path / "net.onnx", tmp_path / "p.vnnlib"
    onnx.save(model([onnx.helper.make_node("Relu", ["x"], ["y"])], {}, [1, 1]), network)
    for level, code in (("-0.001", 0), ("0.001", 1)):
        asked.write_text(property_text(1, 1, [("-1", "1")], f"(<= (- (* 2 Y_0) X_0) {level})"))
        writer = Writer(network, vnnlib_question(asked))
        writer.case([[-1, 1]], [[{"outputs": [[0, "2"]], "inputs": [[0, "-1"]], "offset": level}]])
        writer.header["sites"] = [["y", 0]]
        writer.fact("interval", case=0)
        writer.fact("phases", of=0, tree=writer.array([[0, 0], [-1, -1], [-1, -1]], np.int8), condition=0)
        assert outcome(Example(network, asked, writer), tmp_path, *options) == code


def test_what_the_format_does_not_have_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def changed(*path: str | int, value: object) -> None:
        found = by_passes(tmp_path)
        at = found.writer.header
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        rejected(found, tmp_path, capsys)

    changed("comment", value="a0")
    changed("network", "comment", value="a0")
    changed("cases", 0, "conditions", 0, 0, "strict", value="false")
    changed("facts", 1, "lines", value="interval")
    changed("facts", 1, "of", value=False)  # which Python takes for 0


def test_a_unit_named_twice_gives_no_evidence_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = by_passes(tmp_path)
    writer = found.writer
    pair = [writer.array([2, 2], np.uint8), writer.array([[5, 5]], np.float32)]
    writer.header["facts"][-1]["multipliers"] = {"0": pair}
    rejected(found, tmp_path, capsys, "twice")


def test_what_is_no_network_or_no_property_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = by_passes(tmp_path)
    assert found.property is not None
    proof = str(found.save(tmp_path / "proof"))
    for paths in (
        [proof, proof, str(found.property)],
        [proof, str(found.network), proof],
        [proof, str(found.network)],
        [proof, str(tmp_path / "none"), str(found.property)],
        [str(tmp_path / "none"), str(found.network), str(found.property)],
    ):
        assert main.main(paths) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1


def test_the_program_runs_by_itself(tmp_path: Path) -> None:
    found = by_phases(tmp_path)
    command = [sys.executable, "-m", "mipverify_check", str(found.save(tmp_path / "proof")), str(found.network)]
    folder = Path(__file__).parents[2] / "checker"
    done = subprocess.run([*command, str(found.property)], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("verified: ")
