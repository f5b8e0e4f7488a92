"""Small images of four classes that a small network learns in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mipverify.models.training import Images, read_images


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def make_arrays(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images (count, 8, 8) whose bright quarter is their class, and labels (count,)."""
    chance = np.random.default_rng(seed)
    labels = chance.integers(0, 4, count)
    images = chance.integers(0, 90, (count, 8, 8))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 130
    return images.astype(np.uint8), labels.astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with train.npz (320 images) and test.npz (40)."""
    for name, count, seed in (("train", 320, 0), ("test", 40, 1)):
        images, labels = make_arrays(count, seed)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=labels)
    return tmp_path


@pytest.fixture
def data(folder: Path) -> tuple[Images, Images]:
    """Training and test images in memory."""
    return read_images(folder / "train.npz"), read_images(folder / "test.npz")
