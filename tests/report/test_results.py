"""Results as objects: one line, a table in a notebook, data frames, plots, names of classes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mipverify
from mipverify.engine.sample import SampleResult
from mipverify.engine.verdict import Witness
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.network.graph import Affine, Input, Term
from mipverify.network.operators import Dense

NAMES = ("cat", "dog", "<owl>")


@pytest.fixture(scope="module")
def network() -> Network:
    """Scores of three classes: the sum of the upper half of a 4x4 image, of the lower half, and zero."""
    weight = np.zeros((3, 16))
    weight[0, :8] = weight[1, 8:] = 1
    return Network((Input((1, 16)), Affine((1, 3), (Term(0, Dense(weight)),))), 1)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Upper halves that are brighter by 0.5 (proven at 0.1), by 0.1 (violated), and darker (misclassified)."""
    found = np.full((4, 4, 4), 0.5, np.float32)
    found[:, :2] = np.array([1.0, 0.6, 0.25, 0.55], np.float32)[:, None, None]
    return found


@pytest.fixture(scope="module")
def result(network: Network, images: np.ndarray) -> mipverify.AccuracyResult:
    return mipverify.adversarial_accuracy(
        network, images, np.zeros(4, int), "0.1", workers=0, class_names=NAMES, mean=0.25, std=0.5
    )


def test_confusion_counts_what_is_taken_for_what(result: mipverify.AccuracyResult) -> None:
    assert [s.verdict for s in result.samples] == ["holds", "violated", "misclassified", "violated"]
    np.testing.assert_array_equal(result.confusion(), [[1, 3, 0], [0, 0, 0], [0, 0, 0]])
    assert [result.name_of(label) for label in (0, 1, 7)] == ["cat", "dog", "7"]


def test_a_table_in_a_notebook(result: mipverify.AccuracyResult) -> None:
    html = result._repr_html_()
    for text in ("4 samples, eps 0.1", "75.00%", "25.00%", "1 of 4", "cat as dog (3)"):
        assert text in html
    assert repr(result) == "AccuracyResult(4 samples, adversarial error 75.00% to 75.00%)"


def test_data_frames_have_the_names(result: mipverify.AccuracyResult) -> None:
    pytest.importorskip("pandas")
    frame = result.to_dataframe()
    assert list(frame["label"]) == ["cat"] * 4
    assert frame["adversarial_label"][1] == "dog"
    assert frame["adversarial_label"][0] is None or frame["adversarial_label"][0] != frame["adversarial_label"][0]


def test_plots(result: mipverify.AccuracyResult) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    axes = result.plot_curve()
    heights = sorted(line.get_ydata()[-1] for line in axes.get_lines())
    assert heights == [1, 2]
    own = pyplot.subplots()[1]
    assert result.plot_curve(own) is own
    figure = result.plot_counterexamples(1)
    shown = [ax.get_images()[0].get_array() for ax in figure.axes]
    assert [a.shape for a in shown] == [(4, 4)] * 3
    assert [ax.get_title() for ax in figure.axes][::2] == ["cat", "dog"]
    np.testing.assert_allclose(shown[0][0], 0.6, atol=1e-6)
    # In pixels, not in what the network gets: at most 0.1 away.
    assert 0.04 < abs(shown[2] - shown[0]).max() < 0.1001
    pyplot.close("all")


def test_a_plot_of_the_confusion(result: mipverify.AccuracyResult) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    axes = result.plot_confusion()
    counts = {t.get_position(): t.get_text() for t in axes.texts}  # (column, row)
    assert counts == {(0, 0): "1", (1, 0): "3"}
    assert [t.get_text() for t in axes.get_yticklabels()] == list(NAMES)
    assert axes.get_ylabel() == "class"
    coloured = axes.get_images()[-1].get_array()
    assert coloured[0, 1] == 3
    assert coloured.mask.diagonal().all()  # what is proven does not outshine the rest
    own = pyplot.subplots()[1]
    assert result.plot_confusion(own) is own
    pyplot.close("all")


def test_no_confusion_of_undecided_samples() -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match="no decided sample"):
        mipverify.AccuracyResult({}, (SampleResult(0, 1, 1, "unknown", "none", 0.0),)).plot_confusion()


def test_plots_without_anything_to_plot(network: Network, images: np.ndarray) -> None:
    pytest.importorskip("matplotlib")
    proven = mipverify.adversarial_accuracy(network, images[:1], [0], "0.1", workers=0)
    with pytest.raises(InputError, match="no counterexample"):
        proven.plot_counterexamples()


def test_without_matplotlib_the_error_says_what_is_missing(
    result: mipverify.AccuracyResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"mipverify\[plots\]"):
        result.plot_curve()


def test_the_page_has_names_and_what_is_taken_for_what(network: Network, images: np.ndarray, tmp_path: Path) -> None:
    mipverify.adversarial_accuracy(
        network, images, np.zeros(4, int), "0.1", workers=0, class_names=["<owl>", "dog", "cat"], out=tmp_path / "run"
    )
    html = (tmp_path / "run" / "report.html").read_text()
    assert "Taken for what" in html
    assert "&lt;owl&gt;" in html
    assert "<owl>" not in html


def test_names_must_fit(network: Network, images: np.ndarray) -> None:
    with pytest.raises(InputError, match="2 names of classes, but the network has 3 outputs"):
        mipverify.adversarial_accuracy(network, images, np.zeros(4, int), "0.1", class_names=["a", "b"], workers=0)
    unnamed: Any
    for unnamed in (3, "abc", None):
        with pytest.raises(InputError, match="class_names must be a list of names"):
            mipverify.adversarial_accuracy(network, images, np.zeros(4, int), "0.1", class_names=unnamed, workers=0)


def test_answers_to_one_question_are_short(network: Network, images: np.ndarray) -> None:
    answers: list[Any] = [
        mipverify.verify(network, images[0], 0, eps=0.1),
        mipverify.verify(network, images[1], 0, eps=0.1),
        mipverify.worst_margin(network, images[0], 0, 0.1),
        mipverify.minimum_distortion(network, images[0], 0),
        Witness(np.zeros(16, np.float32), np.array([1.0, 2.0])),
    ]
    for answer in answers:
        assert len(repr(answer)) < 120
        assert "array" not in repr(answer)
    assert "margin >= " in repr(answers[0])
    assert "output [1, 2]" in repr(answers[4])
    html = answers[1]._repr_html_()
    assert "violated" in html
    assert "16 values" in html
    assert "linf" in answers[3]._repr_html_()
    assert "margin at least" in answers[2]._repr_html_()


def test_progress_on_request(network: Network, images: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    mipverify.verify(network, images[0], 0, eps=0.1, progress=True)
    shown = capsys.readouterr()
    assert "interval" in shown.err
    assert not shown.out


def test_a_sample_without_a_known_prediction_is_not_counted() -> None:
    lost = SampleResult(0, 1, -1, "unknown", "none", 0.0)
    assert mipverify.AccuracyResult({}, (lost,)).confusion().shape == (0, 0)
