"""Training data in memory: what `load_dataset` reads, or a folder of images with one subfolder for each class."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mipverify.errors import InputError
from mipverify.specification import load_dataset

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False)
class Images:
    """`pixels` float32 (N, channels, height, width) or (N, inputs) in [0, 1]; `labels` int64 (N,)."""

    pixels: Tensor
    labels: Tensor
    path: str
    sha256: str

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return tuple(self.pixels.shape[1:])

    @property
    def classes(self) -> int:
        """Number of classes: one more than the largest label."""
        return int(self.labels.max()) + 1

    def held_out(self) -> tuple[Images, Images]:
        """All but the last tenth of the images, or the last 2000, and these."""
        return self.without_last(min(2000, max(1, len(self) // 10)))

    def without_last(self, count: int) -> tuple[Images, Images]:
        """All but the last `count` images, and these. Raises InputError unless there are more."""
        rest = len(self) - count
        if rest < 1:
            raise InputError(f"{self.path}: {len(self)} images are too few to hold {count} out")
        last = Images(self.pixels[rest:], self.labels[rest:], f"{self.path}, from image {rest}", self.sha256)
        return self.first(rest), last

    def first(self, count: int | None) -> Images:
        """The first `count` images."""
        return self if count is None else Images(self.pixels[:count], self.labels[:count], self.path, self.sha256)


def read_images(path: str | Path) -> Images:
    """Read labelled images from .npz, IDX or CSV files or from a folder with one subfolder of images for each class.

    Grey images become one channel; channels last becomes channels first. The classes of a folder are its subfolders
    in the order of their names (numbers in the order of their values).

    Raises:
        InputError: it is missing, damaged, or has pixels outside [0, 1].
    """
    place = Path(path)
    if place.is_dir():
        stored, labels, digest = _read_folder(place)
        pixels = stored.astype(np.float32) / np.float32(255)
    else:
        dataset = load_dataset(place, domain=None)  # their range is looked at below
        pixels, labels, digest = dataset.images.astype(np.float32), dataset.labels, dataset.sha256
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.ndim == 4 and pixels.shape[3] in (1, 3) and pixels.shape[1] not in (1, 3):
        pixels = np.ascontiguousarray(np.moveaxis(pixels, 3, 1))
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise InputError(f"{path}: pixels must lie in [0, 1] (or be uint8), but they range from {low:g} to {high:g}")
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels), str(path), digest)


def _read_folder(folder: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """uint8 images (N, H, W) or (N, H, W, 3), labels (N,), and one SHA-256 over names and contents."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise InputError(f"{folder}: folders of images need Pillow: pip install 'mipverify[images]'") from None
    classes = sorted((p for p in folder.iterdir() if p.is_dir()), key=_class_order)
    if len(classes) < 2:
        raise InputError(f"{folder}: a folder of images needs one subfolder for each class, and at least two")
    images: list[np.ndarray] = []
    labels: list[int] = []
    digest = hashlib.sha256()
    first: Any = None
    for label, subfolder in enumerate(classes):
        for file in sorted(subfolder.iterdir()):
            if file.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            digest.update(f"{subfolder.name}/{file.name}\0".encode() + file.read_bytes())
            try:
                with Image.open(file) as image:
                    grey = image.mode in ("1", "L", "LA", "I", "I;16")
                    array = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.uint8)
            except (UnidentifiedImageError, OSError) as error:
                raise InputError(f"{file}: cannot be read as an image ({error})") from None
            first = first or (array.shape, file)
            if array.shape != first[0]:
                raise InputError(f"{file}: shape {array.shape}, but {first[1]} has {first[0]}")
            images.append(array)
            labels.append(label)
    if not images:
        raise InputError(f"{folder}: no images ({', '.join(IMAGE_SUFFIXES)}) in its subfolders")
    return np.stack(images), np.asarray(labels, dtype=np.int64), digest.hexdigest()


def _class_order(folder: Path) -> tuple[int, int, str]:
    name = folder.name
    return (0, int(name), name) if name.isascii() and name.isdecimal() else (1, 0, name)


def augment(pixels: Tensor, *, shift: int, flip: bool, warp: float = 0.0) -> Tensor:
    """Randomly shifted (by up to `shift` pixels, zeros move in), mirrored and warped images (B, C, H, W).

    warp: a random matrix whose entries differ from those of the identity by up to so much turns, shears and scales
    each image about its centre, with bilinear interpolation; 0.1 is 6 degrees, or a tenth.
    """
    if warp:
        change = (2 * torch.rand(len(pixels), 2, 2) - 1) * warp
        maps = torch.cat([torch.eye(2) + change, torch.zeros(len(pixels), 2, 1)], dim=2)
        grid = torch.nn.functional.affine_grid(maps, list(pixels.shape), align_corners=False)
        pixels = torch.nn.functional.grid_sample(pixels, grid, align_corners=False).clamp(0, 1)
    if flip:
        mirrored = torch.rand(len(pixels)) < 0.5
        pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
    if shift:
        count, _, height, width = pixels.shape
        padded = torch.nn.functional.pad(pixels, (shift,) * 4)
        down, right = torch.randint(0, 2 * shift + 1, (2, count))
        rows = (down[:, None] + torch.arange(height))[:, None, :, None]
        columns = (right[:, None] + torch.arange(width))[:, None, None, :]
        samples = torch.arange(count)[:, None, None, None]
        channels = torch.arange(pixels.shape[1])[None, :, None, None]
        pixels = padded[samples, channels, rows, columns]
    return pixels
