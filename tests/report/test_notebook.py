"""Progress in a notebook: one output of the cell, replaced in place; none of it where there is no kernel."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mipverify
from mipverify.network import Network
from mipverify.network.graph import Affine, Input, Term
from mipverify.network.operators import Dense
from mipverify.report import notebook

NETWORK = Network((Input((1, 2)), Affine((1, 2), (Term(0, Dense(np.eye(2))),))), 1)
IMAGES = np.array([[0.9, 0.1], [0.55, 0.45], [0.2, 0.8]], np.float32)
LABELS = np.zeros(3, int)


@dataclass
class Cell:
    """What a notebook shows below a cell: for each output all that stood there, one after the other."""

    outputs: list[list[Any]] = field(default_factory=list)

    def display(self, shown: Any, *, display_id: bool = False) -> Any:
        assert display_id
        self.outputs.append([shown])
        return SimpleNamespace(update=self.outputs[-1].append)


def kernel(monkeypatch: pytest.MonkeyPatch, shell: Any) -> Cell:
    """IPython as it looks from inside: with a shell of this kind."""
    cell = Cell()
    interactive, displaying = ModuleType("IPython"), ModuleType("IPython.display")
    interactive.get_ipython = lambda: shell  # type: ignore[attr-defined]
    displaying.display = cell.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", interactive)
    monkeypatch.setitem(sys.modules, "IPython.display", displaying)
    return cell


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    return kernel(monkeypatch, SimpleNamespace(kernel=object()))


def test_a_run_is_one_bar_that_ends_full(cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    mipverify.adversarial_accuracy(NETWORK, IMAGES, LABELS, "0.1", workers=0, progress=True)
    (states,) = cell.outputs
    last = states[-1]._repr_html_()
    assert "value='3' max='3'" in last
    assert "1 hold, 1 violated, 1 misclassified" in last
    assert repr(states[-1]).startswith("3/3 done")
    captured = capsys.readouterr()
    assert not captured.out
    assert not captured.err


def test_questions_to_a_session_too(cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    with mipverify.Session(NETWORK) as session:
        session.verify_all([(image, 0, 0.1) for image in IMAGES], progress=True)
    (states,) = cell.outputs
    assert "value='3' max='3'" in states[-1]._repr_html_()
    assert "3/3 done" in repr(states[-1])
    assert not capsys.readouterr().err


def test_a_fast_run_does_not_flood_the_browser(cell: Cell) -> None:
    with notebook.NotebookBar() as bar:
        for done in range(1, 10_001):
            bar.step(done, 10_000, f"<{done}>")
    (states,) = cell.outputs
    assert len(states) < 100
    assert "&lt;10000&gt;" in states[-1]._repr_html_()


def test_a_run_of_nothing_shows_nothing(cell: Cell) -> None:
    with notebook.NotebookBar():
        pass
    assert not cell.outputs


def test_in_a_terminal_there_is_no_cell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cell = kernel(monkeypatch, SimpleNamespace())  # IPython in a terminal
    assert not notebook.in_notebook()
    mipverify.adversarial_accuracy(NETWORK, IMAGES, LABELS, "0.1", workers=0, progress=True)
    assert not cell.outputs
    assert "3 done" in capsys.readouterr().err


def test_without_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel(monkeypatch, None)  # IPython was imported by a script
    assert not notebook.in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not notebook.in_notebook()
