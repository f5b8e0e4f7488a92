"""Perturbations of some pixels only: of the background, of the foreground, or of those that a file marks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mipverify.engine.distortion import GAP, Distortion, minimum_distortion
from mipverify.engine.threats.sample import Sample
from mipverify.engine.threats.threat import Limits, Threat
from mipverify.engine.verdict import Verdict
from mipverify.engine.verify import verify
from mipverify.errors import InputError, one_line
from mipverify.network import Network
from mipverify.specification import Case, Specification
from mipverify.specification.perturbation import Perturbation

OF_IMAGE = ("background", "foreground")


@dataclass(frozen=True)
class Mask(Threat):
    """Perturbations within a radius of the pixels that a mask allows; all others stay as they are.

    kind: background (pixels that are 0 in all channels), foreground (all others), or the file that `marked` is of: what
    is not 0 there may change, (height, width) for all channels, or of the image's shape.
    """

    kind: str = "background"
    marked: NDArray[Any] | None = field(default=None, compare=False)

    radius: ClassVar[Literal["needed", "allowed", "none"]] = "needed"

    def allowed(self, sample: Sample) -> NDArray[np.bool_]:
        """Which entries (n,) of an input may change. Raises InputError where the mask does not fit the image."""
        image = np.asarray(sample.image)
        if self.marked is None:
            pixels = sample.pixels
            zero = (pixels.planes(image) == 0).all(axis=0)
            found = np.zeros(image.size, bool)
            found[pixels.entries] = zero if self.kind == "background" else ~zero
            return found
        if self.marked.size == image.size:
            return np.asarray(self.marked != 0).reshape(-1)
        pixels = sample.pixels
        if self.marked.shape != (pixels.height, pixels.width):
            raise InputError(
                f"threat {self.text}: the mask has shape {self.marked.shape}, images have {pixels.height} x "
                f"{pixels.width} pixels"
            )
        found = np.zeros(image.size, bool)
        found[pixels.entries] = self.marked != 0
        return found

    def verify(self, network: Network, sample: Sample, limits: Limits) -> Verdict:
        around = Perturbation.around(
            sample.image,
            norm=sample.norm,
            scale=self.allowed(sample).astype(np.float64),
            domain=sample.domain,
            mean=sample.mean,
            std=sample.std,
        )
        case = Case(around.within(sample.radius(self.text)), sample.conditions(network.output_size))
        return verify(network, Specification((case,), "robustness"), **limits.options())

    def distance(
        self, network: Network, sample: Sample, limits: Limits, gap: float = GAP, max_distance: float | None = None
    ) -> Distortion:
        """The smallest radius, in the norm of the sample."""
        return minimum_distortion(
            network,
            sample.image,
            sample.label,
            norm=sample.norm,
            targets=sample.targets,
            domain=sample.domain,
            scale=self.allowed(sample).astype(np.float64),
            mean=sample.mean,
            std=sample.std,
            gap=gap,
            max_distance=max_distance,
            **limits.options(),
        )


def mask(text: str) -> Mask:
    """The threat `mask:background`, `mask:foreground` or `mask:FILE` (.npy, .npz with one array, .png).

    The text of one of a file holds the first digits of its SHA-256, so that another mask is another threat. Raises
    InputError.
    """
    if text in OF_IMAGE:
        return Mask(f"mask:{text}", text)
    marked, digest = _read(Path(text))
    return Mask(f"mask:{Path(text).name}#{digest[:12]}", text, marked)


def _read(path: Path) -> tuple[NDArray[Any], str]:
    """The array of a file, and its SHA-256."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"mask {path}: cannot be read ({error.strerror})") from None
    reader = {".npy": _npy, ".npz": _npz, ".png": _png}.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"mask {path}: is background, foreground, or a file that ends in .npy, .npz or .png")
    try:
        marked = reader(path)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever a damaged file makes of its reader
        raise InputError(f"mask {path}: cannot be read ({one_line(error)})") from None
    if marked.dtype.kind not in "buif" or not np.isfinite(marked).all():
        raise InputError(f"mask {path}: holds {marked.dtype}, not finite numbers")
    if not marked.any():
        raise InputError(f"mask {path}: marks no pixel")
    return marked, hashlib.sha256(content).hexdigest()


def _npy(path: Path) -> NDArray[Any]:
    return np.asarray(np.load(path, allow_pickle=False))


def _npz(path: Path) -> NDArray[Any]:
    with np.load(path, allow_pickle=False) as arrays:
        if len(arrays.files) != 1:
            raise InputError(f"mask {path}: holds {len(arrays.files)} arrays: one is needed")
        return np.asarray(arrays[arrays.files[0]])


def _png(path: Path) -> NDArray[Any]:
    try:
        from PIL import Image
    except ImportError:
        raise InputError(f"mask {path}: PNG files need Pillow: pip install 'mipverify[images]'") from None
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))
