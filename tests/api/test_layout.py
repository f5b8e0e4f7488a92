"""Images with their channels last, for modules and files that take them first: all that is stated moves with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import mipverify  # noqa: E402
from mipverify.errors import InputError  # noqa: E402
from mipverify.network import from_torch  # noqa: E402
from mipverify.network.formats.export import to_onnx  # noqa: E402

SHAPE = (2, 4, 3)  # height, width, channels


@pytest.fixture
def model() -> nn.Module:
    """Two scores of which the first is larger, and each reads other entries than the other one."""
    weights = torch.zeros(2, 3, 2, 4)
    weights[0, 0, 0], weights[0, 1], weights[1, 2] = 1.0, 0.25, 0.5
    module = nn.Sequential(nn.Flatten(), nn.Linear(24, 2))
    with torch.no_grad():
        module[1].weight.copy_(weights.reshape(2, 24))
        module[1].bias.copy_(torch.tensor([20.0, 0.0]))
    return module.eval()


def moved(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(value, -1, -3))


def entries(seed: int, low: float, high: float) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, SHAPE)


ENTRIES: dict[str, Callable[[Callable[[np.ndarray], Any]], dict[str, Any]]] = {
    "mask": lambda at: {"eps": 0.125, "mask": at((entries(0, 0, 1) > 0.5).astype(float))},
    "flat mask": lambda at: {"eps": 0.125, "mask": at((entries(0, 0, 1) > 0.5).astype(float)).reshape(-1)},
    "mask of channels": lambda at: {"eps": 0.125, "mask": at(np.array([[[1.0, 0.0, 1.0]]]))},
    "mask of a batch": lambda at: {"eps": 0.125, "mask": at((entries(1, 0, 1) > 0.5).astype(float)[None])},
    "eps": lambda at: {"eps": at(entries(2, 0, 0.25))},
    "domain": lambda at: {"eps": 0.25, "domain": (at(entries(3, 0.25, 0.375)), 1)},
    "mean and std": lambda at: {"eps": 0.125, "mean": at(entries(4, 0, 1)), "std": at(entries(5, 0.5, 1))},
}


@pytest.mark.parametrize("kind", ["module", "network", "file"])
@pytest.mark.parametrize("options", ENTRIES.values(), ids=ENTRIES)
def test_what_is_stated_for_entries_moves_with_them(
    model: nn.Module, tmp_path: Path, kind: str, options: Callable[[Any], dict[str, Any]]
) -> None:
    asked: Any = model
    if kind != "module":
        asked = from_torch(model, (3, 2, 4))
        onnx.save(to_onnx(asked), tmp_path / "net.onnx")
        asked = asked if kind == "network" else tmp_path / "net.onnx"
    x = entries(6, 0.4, 0.6)
    expected = mipverify.verify(model, moved(x), 0, **options(moved))
    found = mipverify.verify(asked, x, 0, layout="nhwc", **options(lambda value: value))
    assert found.verdict == expected.verdict == "holds"
    assert found.margin_lower_bound == pytest.approx(expected.margin_lower_bound, abs=1e-6)


def test_distances_move_scale_and_constraints(model: nn.Module) -> None:
    x, scale, row = entries(7, 0.4, 0.6), entries(8, 0, 1), entries(9, -1, 1)
    limit = float((row * x).sum()) + 0.05
    for ask in (mipverify.worst_margin, mipverify.minimum_distortion):
        options = {"eps": 0.25} if ask is mipverify.worst_margin else {}
        expected = ask(model, moved(x), 0, scale=moved(scale), constraints=[(moved(row), limit)], **options)
        found = ask(model, x, 0, layout="nhwc", scale=scale, constraints=[(row, limit)], **options)
        assert found.lower == pytest.approx(expected.lower, abs=1e-3)


def test_files_get_images_in_their_own_order(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    network = from_torch(nn.Sequential(nn.Conv2d(3, 1, 1), model[0], nn.Linear(8, 2)), (3, 2, 4))
    onnx.save(to_onnx(network), path)
    x = np.stack([entries(seed, 0.4, 0.6) for seed in range(3)])
    expected = [w.lower for w in mipverify.worst_margin(path, moved(x), eps=0.01)]
    for layout in ("nhwc", None):  # without one, the only move of channels that fits
        found = mipverify.worst_margin(path, x, eps=0.01, layout=layout)
        np.testing.assert_allclose([w.lower for w in found], expected, atol=1e-3)
    with pytest.raises(InputError, match="holds no inputs"):
        mipverify.verify(path, np.full((4, 2, 3), 0.5), eps=0.01)
    with pytest.raises(InputError, match="mask of shape"):
        mipverify.verify(path, moved(x[0]), eps=0.01, mask=np.ones(SHAPE))
