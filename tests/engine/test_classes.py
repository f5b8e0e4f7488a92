"""Files that end in an ArgMax give a class and no scores: what that shows, and what it does not."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mipverify
from mipverify.cli.main import main
from mipverify.engine.batch import verify_batch
from mipverify.network import Network
from mipverify.specification import Box, Case, Condition, Specification
from mipverify.specification.conditions import Row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The class of three scores, which are the inputs themselves."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("ArgMax", ["y"], ["z"], axis=1, keepdims=0),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("z", TensorProto.INT64, [1])],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "net.onnx"
    )
    return tmp_path / "net.onnx"


@pytest.fixture
def network(path: Path) -> Network:
    return mipverify.load(path)


def ordered(lower: list[str], upper: list[str], conditions: list[list[tuple[int, int, bool]]]) -> Specification:
    """Conditions of pairs (a, b, strict): Y_a <= Y_b, or below it."""
    box = Box.from_exact([Fraction(v) for v in lower], [Fraction(v) for v in upper])
    made = [
        Condition.from_rows([Row({a: Fraction(1), b: Fraction(-1)}, {}, Fraction(0), s) for a, b, s in rows], 3, 3)
        for rows in conditions
    ]
    return Specification((Case(box, tuple(made)),), "vnnlib")


def test_a_class_answers_comparisons_with_it(network: Network) -> None:
    holds = ordered(["0.5", "0", "0"], ["1", "0.25", "0.25"], [[(0, 1, False)], [(0, 2, False)]])
    assert mipverify.verify(network, holds, timeout=5).verdict == "holds"
    violated = ordered(["0.5", "0", "0"], ["1", "0.75", "0.25"], [[(0, 2, False)], [(0, 1, False)]])
    verdict = mipverify.verify(network, violated, timeout=5)
    assert verdict.verdict == "violated"
    assert verdict.witness is not None
    assert verdict.witness.input[1] >= verdict.witness.input[0]


def test_a_tie_is_no_strict_violation(network: Network) -> None:
    # The scores are equal at all of these inputs, exactly: neither is ever below the other.
    tie = ordered(["0.5", "0.5", "0"], ["0.5", "0.5", "0.25"], [[(1, 0, True)]])
    assert mipverify.verify(network, tie, timeout=2).verdict == "holds"


def test_a_class_says_nothing_about_the_second_row_of_a_conjunction(network: Network) -> None:
    # Class 1 beats class 0 everywhere, but class 2 is a hair below class 0.
    never = ordered(["0.5", "0.625", "0"], ["0.5", "1", "0.49999"], [[(0, 1, False), (0, 2, False)]])
    assert mipverify.verify(network, never, timeout=2).verdict == "holds"
    box = ordered(["0.5", "0.625", "0"], ["0.5", "1", "0.50001"], [[(0, 1, False), (0, 2, False)]])
    verdict = mipverify.verify(network, box, timeout=2)
    assert verdict.verdict == "unknown"  # it is violated, and the file's output cannot show it


def test_batches_of_classes(network: Network) -> None:
    images = np.array([[0.9, 0.1, 0.1], [0.1, 0.9, 0.85], [0, 0, 0.5], [0.1, 0.4, 0.5]], np.float32)
    found = {r.index: r for r in verify_batch(network, images, np.array([0, 1, 0, 2]), "0.03", timeout=5)}
    assert [found[k].verdict for k in range(4)] == ["holds", "violated", "misclassified", "holds"]
    assert found[1].adversarial_label == 2
    assert found[1].adversarial is not None
    assert found[1].adversarial[2] >= found[1].adversarial[1]
    assert found[2].predicted == 2


def test_the_command_line_names_the_class(path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "images.npz", images=np.array([[0.1, 0.9, 0.85]], np.float32), labels=np.array([1]))
    asked = ["--data", str(tmp_path / "images.npz"), "--index", "0", "--eps", "0.05"]
    assert main(["verify", str(path), *asked]) == 10
    assert "class 2 instead of 1" in capfd.readouterr().out


def test_one_output_is_not_the_class_that_a_file_ends_in(network: Network) -> None:
    box = Box.from_exact([Fraction(0)] * 3, [Fraction(1)] * 3)
    about = Condition.from_rows([Row({0: Fraction(-1)}, {}, Fraction(-1))], 3, 1)
    with pytest.raises(mipverify.InputError, match=r"one output, but .*net.onnx ends in a class: ArgMax .* 3 scores"):
        mipverify.verify(network, Specification((Case(box, (about,)),), "vnnlib"))


def test_scores_behind_a_softmax_are_no_class(tmp_path: Path) -> None:
    """A property of too few outputs is one, whatever the file ends in."""
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"])], "g", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    box = Box.from_exact([Fraction(0)] * 3, [Fraction(1)] * 3)
    about = Condition.from_rows([Row({0: Fraction(-1)}, {}, Fraction(-1))], 3, 1)
    with pytest.raises(mipverify.InputError, match="the property has 1 output, the network 3"):
        mipverify.verify(mipverify.load(tmp_path / "net.onnx"), Specification((Case(box, (about,)),), "vnnlib"))
