"""Training data from files and folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mipverify.models.training import read_images
from mipverify.models.training.data import augment

from mipverify.errors import InputError


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((6, 6), (1, 6, 6)), ((1, 6, 6), (1, 6, 6)), ((6, 6, 3), (3, 6, 6)), ((3, 6, 6), (3, 6, 6)), ((9,), (9,))],
)
def test_shapes(shape: tuple[int, ...], expected: tuple[int, ...], tmp_path: Path) -> None:
    stored = np.arange(4 * int(np.prod(shape))).reshape(4, *shape).astype(np.uint8)
    np.savez(tmp_path / "d.npz", images=stored, labels=np.arange(4))
    images = read_images(tmp_path / "d.npz")
    assert images.shape == expected
    assert images.classes == 4
    plain = torch.from_numpy(stored.astype(np.float32) / np.float32(255))
    if shape == (6, 6, 3):
        plain = plain.permute(0, 3, 1, 2)
    assert torch.equal(images.pixels, plain.reshape(4, *expected))


def test_pixels_out_of_range(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.full((2, 3, 3), 7.0), labels=np.arange(2))
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        read_images(tmp_path / "d.npz")


def test_folder_of_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name, value in (("2", 20), ("10", 100)):
        (tmp_path / name).mkdir()
        for i in range(3):
            image.fromarray(np.full((4, 5), value + i, np.uint8)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "2" / "notes.txt").write_text("no image")
    images = read_images(tmp_path)
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]  # 2 comes before 10
    assert images.shape == (1, 4, 5)
    assert (images.pixels[:, 0, 0, 0] * 255).round().tolist() == [20, 21, 22, 100, 101, 102]
    before = images.sha256
    image.fromarray(np.full((4, 5), 99, np.uint8)).save(tmp_path / "10" / "0.png")
    assert read_images(tmp_path).sha256 != before
    image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "10" / "9.png")
    with pytest.raises(InputError, match=r"9\.png: shape"):
        read_images(tmp_path)
    (tmp_path / "10" / "9.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"9\.png: cannot be read"):
        read_images(tmp_path)


def test_folder_without_classes(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    with pytest.raises(InputError, match="subfolder"):
        read_images(tmp_path)
    for name in "ab":
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="no images"):
        read_images(tmp_path)


def test_augmentation_moves_pixels_only() -> None:
    torch.manual_seed(0)
    pixels = torch.rand(64, 2, 6, 6)
    assert torch.equal(augment(pixels, shift=0, flip=False), pixels)
    flipped = augment(pixels, shift=0, flip=True)
    mirrored = (flipped == pixels.flip(3)).flatten(1).all(1)
    assert 10 < int(mirrored.sum()) < 54
    assert torch.equal(flipped[~mirrored], pixels[~mirrored])
    moved = augment(pixels, shift=2, flip=False)
    assert moved.shape == pixels.shape
    padded = torch.nn.functional.pad(pixels, (2, 2, 2, 2))
    windows = [padded[:, :, i : i + 6, j : j + 6] for i in range(5) for j in range(5)]
    found = torch.stack([(moved == window).flatten(1).all(1) for window in windows])
    assert found.any(0).all()
    assert found.any(1).sum() > 15


def test_warps_keep_the_image_about_in_place() -> None:
    torch.manual_seed(0)
    rows = torch.linspace(0, 1, 28).reshape(1, 1, 28, 1).expand(16, 1, 28, 28)
    warped = augment(rows, shift=0, flip=False, warp=0.1)
    inner = slice(8, 20)
    difference = (warped - rows)[:, :, inner, inner].abs()
    assert 0.005 < difference.max() < 0.1  # at 6 pixels from the centre: at most 6 * (0.1 + 0.1) pixels
    assert 0 <= warped.min() <= warped.max() <= 1
