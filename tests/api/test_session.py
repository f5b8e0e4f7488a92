"""A session against single calls: the same verdicts in any order, bad questions beside good ones, nothing left over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mipverify
from mipverify.engine.verdict import Verdict
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.specification import Case, Specification
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.robustness import misclassified
from tests.cli.files import vnnlib
from tests.soundness.nets import dense, question, random_layers

FILE = Path(__file__).parents[2] / "models" / "zoo" / "mnist_small_linf0.1.onnx"
DATA = FILE.parent / "mnist_100.npz"


def random_questions(rng: np.random.Generator, count: int) -> list[Specification]:
    """About networks of 3 inputs and 3 outputs: one row or several, strict or not, boxes, parts of boxes, balls."""
    found: list[Specification] = []
    for k in range(count):
        middle, radius = rng.integers(-8, 9, 3) / 8, float(rng.choice([0.0, 0.05, 0.2, 0.6]))
        rows = [(rng.integers(-2, 3, 3).tolist(), float(rng.normal())) for _ in range(1 + k % 3)]
        conditions = [rows[:1], rows[1:]] if len(rows) > 2 else [rows]
        asked = question(middle - radius, middle + radius, conditions)
        if k % 5 == 3:  # a second box
            other = question(middle + 2 * radius, middle + 3 * radius, conditions)
            asked = Specification((*asked.cases, *other.cases), "vnnlib")
        if k % 7 == 2:
            ball = Perturbation.around(middle, norm="l2", domain=(-2, 2)).within(max(radius, 0.1))
            asked = Specification((Case(ball, misclassified(0, 3, 3)),), "robustness")
        found.append(asked)
    return found


def words(answers: Any) -> list[str]:
    return [answer.verdict for answer in answers]


@pytest.mark.parametrize("seed", range(3))
def test_verdicts_are_those_of_single_calls_in_any_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = dense(random_layers(rng, (3, 12, 12, 3)))
    questions = random_questions(rng, 60)
    single = [mipverify.verify(network, asked, timeout=30).verdict for asked in questions]
    assert {"holds", "violated"} <= set(single)
    with mipverify.Session(network) as session:
        for _ in range(2):
            order = rng.permutation(len(questions))
            answers = session.verify_all([questions[k] for k in order], timeout=30)
            assert words(answers) == [single[k] for k in order]
            for k, answer in zip(order.tolist(), answers, strict=True):
                assert isinstance(answer, Verdict)
                if answer.witness is not None:
                    assert questions[k].violated_by(answer.witness.input, answer.witness.output)
                else:
                    assert answer.margin_lower_bound is not None
                    assert answer.margin_lower_bound >= 0
        for k in order[:10].tolist():
            assert session.verify(questions[k], timeout=30).verdict == single[k]


def test_conditions_of_one_question_do_not_count_for_another() -> None:
    """On one box, thresholds around the largest value: each is decided as stated, between its neighbors."""
    network = dense(random_layers(np.random.default_rng(5), (2, 8, 1)))
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 201)] * 2), axis=-1).reshape(-1, 2)
    largest = float(network.forward(grid).max())
    levels = [largest + step for step in (-1, -0.5, -0.1, 0.1, 0.5, 1)]
    questions = [question([-1, -1], [1, 1], [[([-1], -level)]]) for level in levels]
    with mipverify.Session(network) as session:
        assert words(session.verify_all(questions)) == ["violated"] * 3 + ["holds"] * 3
        assert words(session.verify_all(questions[::-1])) == ["holds"] * 3 + ["violated"] * 3


def test_bounds_of_a_set_around_are_where_a_question_begins() -> None:
    network = dense(random_layers(np.random.default_rng(1), (3, 16, 16, 16, 1)))
    inner = question([-0.49] * 3, [0.49] * 3, [[([1], -0.5)]])

    def unstable(verdict: Verdict) -> int:
        steps = {step["stage"]: step["unstable"] for step in verdict.statistics["steps"]}
        return int(steps["interval"])

    with mipverify.Session(network) as fresh, mipverify.Session(network) as session:
        before = fresh.verify(inner, timeout=30)
        session.verify(question([-0.5] * 3, [0.5] * 3, [[([1], -0.5)]]), timeout=30)
        after = session.verify(inner, timeout=30)
        beyond = session.verify(question([-0.6] * 3, [0.6] * 3, [[([1], -0.5)]]), timeout=30)
    assert before.verdict == after.verdict
    assert unstable(after) < unstable(before)
    assert beyond.verdict == mipverify.verify(network, question([-0.6] * 3, [0.6] * 3, [[([1], -0.5)]])).verdict


def test_what_is_wrong_with_a_question_leaves_the_others(tmp_path: Path) -> None:
    network = mipverify.load(FILE)
    data = mipverify.load_dataset(DATA).fit_to(network.input_shape)
    file = tmp_path / "three_outputs.vnnlib"
    file.write_text(vnnlib())
    good = mipverify.robustness(data.image(0), data.label(0), "0.05", num_classes=10)
    questions = [
        (data.image(0), data.label(0), "0.05"),
        tmp_path / "missing.vnnlib",
        good,
        (data.image(1).reshape(-1)[:5], 1, "0.05"),
        (data.image(1), data.label(1), "0.1"),
        question([0, 0], [1, 1], [[([1, 0], 0)]]),
        "no question",
        (data.image(2), 11, "0.1"),
        (data.image(2), data.label(2), None),
        (data.image(3), (data.label(3) + 1) % 10, "0.01"),
        file,
        7,
    ]
    seen: list[tuple[int, int]] = []
    with mipverify.Session(network) as session:
        answers = session.verify_all(questions, progress=lambda done, total: seen.append((done, total)))
        assert [k for k, answer in enumerate(answers) if isinstance(answer, InputError)] == [1, 3, 5, 6, 7, 8, 10, 11]
        assert words(answers[k] for k in (0, 2, 4, 9)) == ["holds", "holds", "holds", "violated"]
        assert all("\n" not in str(answer) for answer in answers if isinstance(answer, InputError))
        assert "missing.vnnlib" in str(answers[1])
        assert [k for k, _ in sorted(session.answers(questions))] == list(range(len(questions)))
        with pytest.raises(InputError, match=r"missing\.vnnlib"):
            session.verify(tmp_path / "missing.vnnlib")
    assert {total for _, total in seen} == {len(questions)}
    assert seen[-1] == (len(questions), len(questions))


def test_files_tuples_and_specifications_are_the_same_question(tmp_path: Path) -> None:
    network = mipverify.load(FILE)
    data = mipverify.load_dataset(DATA).fit_to(network.input_shape)
    lines = [f"(declare-const X_{i} Real)" for i in range(784)] + [f"(declare-const Y_{i} Real)" for i in range(10)]
    for i, pixel in enumerate(data.image(4).reshape(-1).tolist()):
        lines.append(f"(assert (>= X_{i} {max(0, pixel - 0.02):.9f}))(assert (<= X_{i} {min(1, pixel + 0.02):.9f}))")
    label = data.label(4)
    others = " ".join(f"(and (>= Y_{k} Y_{label}))" for k in range(10) if k != label)
    file = tmp_path / "image4.vnnlib"
    file.write_text("\n".join([*lines, f"(assert (or {others}))"]))
    with mipverify.Session(FILE) as session:
        answers = session.verify_all([file, (data.image(4), label, "0.02"), (data.image(4), None, 0.02)], proof=True)
        assert words(answers) == ["holds"] * 3
        assert all(isinstance(answer, Verdict) and answer.proof is not None for answer in answers)
        assert isinstance(answers[0], mipverify.Verdict)
        assert answers[0].property["path"] == str(file)
    asked = mipverify.verify(FILE, file)
    assert (asked.verdict, asked.property) == (answers[0].verdict, answers[0].property)


def test_radii_and_images_agree_with_single_calls_in_float32_and_with_statistics() -> None:
    network = mipverify.load(FILE)
    data = mipverify.load_dataset(DATA).fit_to(network.input_shape)
    asked = [(data.image(k), data.label(k), eps) for k in range(6) for eps in ("0.02", "0.1")]
    for arithmetic in ("real", "float32"):
        with mipverify.Session(network, arithmetic=arithmetic) as session:
            answers = session.verify_all(asked, timeout=20)
        for (x, y, eps), answer in zip(asked, answers, strict=True):
            single = mipverify.verify(network, x, y, eps=eps, timeout=20, arithmetic=arithmetic)
            assert isinstance(answer, Verdict)
            assert answer.verdict == single.verdict
            assert answer.arithmetic == arithmetic
            assert len(answer.statistics["unstable_relus"]) == 3
            assert set(answer.to_json()) == set(single.to_json())


def test_an_interrupt_leaves_what_is_decided() -> None:
    network = mipverify.load(FILE)
    data = mipverify.load_dataset(DATA).fit_to(network.input_shape)

    def follow(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with mipverify.Session(network) as session:
        asked = [(data.image(k), data.label(k), "0.02") for k in range(8)]
        answers = session.verify_all(asked, progress=follow)
        assert sorted(words(answers)) == ["holds"] * 3 + ["unknown"] * 5
        assert {answer.reason for answer in answers if isinstance(answer, Verdict)} == {"", "interrupted"}
        assert words(session.verify_all(asked)) == ["holds"] * 8


def test_a_question_out_of_time_leaves_the_others_theirs() -> None:
    network = dense(random_layers(np.random.default_rng(3), (8, 40, 40, 40, 1)))
    hard = question([-1] * 8, [1] * 8, [[([1], -1.0)]])
    easy = [question([k / 8] * 8, [k / 8] * 8, [[([1], -50.0)]]) for k in range(4)]
    with mipverify.Session(network, workers=2) as session:
        answers = session.verify_all([hard, *easy], timeout=0.5)
        assert words(answers)[1:] == ["holds"] * 4
        assert words(session.verify_all(easy, timeout=5)) == ["holds"] * 4


@pytest.fixture
def network() -> Network:
    return dense(random_layers(np.random.default_rng(0), (2, 4, 2)))


def test_a_closed_session_answers_nothing(network: Network) -> None:
    session = mipverify.Session(network)
    session.close()
    session.close()
    for ask in (session.verify, lambda q: session.verify_all([q])):
        with pytest.raises(InputError, match="closed"):
            ask(question([0, 0], [1, 1], [[([1, 0], -9)]]))


def test_no_questions_have_no_answers(network: Network) -> None:
    with mipverify.Session(network, workers=2) as session:
        assert session.verify_all([]) == ()
        assert session.network.input_size == 2
        nothing: Any
        for nothing in (None, 3, "net.vnnlib"):
            with pytest.raises(InputError, match="questions must be a list"):
                session.verify_all(nothing)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"solver": "nobody"}, "nobody"),
        ({"output": 1}, "torch modules"),
        ({"arithmetic": "float16"}, "float16"),
        ({"norm": "l7"}, "l7"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        mipverify.Session(FILE, **options).verify((np.zeros(784), 0, 0.1))


def test_a_torch_module_with_preprocessing() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    x = torch.rand(5, 4)
    with mipverify.Session(module, input_shape=(4,), mean=0.5, std=0.25) as session:
        answers = session.verify_all([(row, None, 0.05) for row in x])
    single = mipverify.verify(module, x, eps=0.05, mean=0.5, std=0.25)
    assert words(answers) == words(single)
    with pytest.raises(InputError, match="input_shape"):
        mipverify.Session(module)
