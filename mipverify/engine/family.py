"""Families of perturbed images: a kernel that blurs, brightness and contrast, a mixture of two images, and noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike

from mipverify.engine.distortion import GAP, Distortion, closest_violation
from mipverify.engine.verdict import Verdict, Witness
from mipverify.engine.verify import verify
from mipverify.errors import InputError
from mipverify.network import Network, loaded
from mipverify.network.parameters import blur_columns
from mipverify.specification import Case, Specification
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.robustness import misclassified
from mipverify.specification.sets import Image


@dataclass(frozen=True, eq=False)
class Family:
    """All images x = clip(matrix @ p + offset) of parameters p, the unperturbed image being that of p = 0.

    matrix: (n, k) sparse. offset: (n,). perturbation: how far p may go from 0, for every radius; at radius 1 it is the
    whole family as it was asked for. clip: legal values of an input, or None. noise: (n, k) sparse, or None; with it,
    x = clip(clip(matrix @ p + offset) + noise @ p).
    """

    matrix: Any
    offset: np.ndarray
    perturbation: Perturbation
    clip: tuple[float, float] | None = (0.0, 1.0)
    noise: Any = None

    def __repr__(self) -> str:
        noise = "" if self.noise is None else ", with noise"
        count = self.matrix.shape[1] - (0 if self.noise is None else len(self.offset))
        return f"Family({len(self.offset)} values, {count} parameters{noise})"

    def image(self, parameters: ArrayLike) -> np.ndarray:
        """The input (n,) that parameters (k,) stand for, in float64."""
        p = np.asarray(parameters, np.float64).reshape(-1)
        if p.shape != (self.matrix.shape[1],):
            raise InputError(f"the family has {self.matrix.shape[1]} parameters, not {p.size}")
        x = self._clipped(self.matrix @ p + self.offset)
        return x if self.noise is None else self._clipped(x + self.noise @ p)

    def _clipped(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x if self.clip is None else np.clip(x, *self.clip))

    def with_noise(self, eps: float) -> Family:
        """The family with every input changed by at most `eps` besides: an l_inf ball around each of its images.

        The sum is clipped again where the family clips at all. The n parameters of the noise follow the family's own.
        """
        if not 0 < eps < np.inf:
            raise InputError(f"noise must be positive, not {eps:g}")
        if self.noise is not None:
            raise InputError("the family has noise already")
        n, own = self.matrix.shape[0], self.perturbation
        matrix = scipy.sparse.csr_array(scipy.sparse.hstack([self.matrix, scipy.sparse.csr_array((n, n))]))
        noise = scipy.sparse.csr_array(
            scipy.sparse.hstack([scipy.sparse.csr_array(self.matrix.shape), scipy.sparse.eye_array(n)])
        )
        rows = None if own.matrix is None else np.hstack([own.matrix, np.zeros((len(own.matrix), n))])
        free = (None,) * n
        joined = replace(
            own,
            center=np.concatenate([own.center, np.zeros(n)]),
            scale=np.concatenate([own.scale, np.full(n, float(eps))]),
            lower=own.lower + free,
            upper=own.upper + free,
            matrix=rows,
        )
        return replace(self, matrix=matrix, perturbation=joined, noise=noise)

    def within(self, radius: object) -> Image:
        """The images that a radius allows."""
        return Image(self.perturbation.within(radius), self.matrix, self.offset, self.clip, self.noise)

    def verify(
        self,
        network: Network | str | Path,
        label: int,
        *,
        radius: object = 1,
        targets: Iterable[int] | None = None,
        timeout: float = 300.0,
        solver: str = "auto",
        seed: int = 0,
        workers: int = 1,
        memory: int | None = None,
        progress: Callable[[str, str], None] | None = None,
        proof: bool = False,
    ) -> Verdict:
        """Whether an image of the family is classified otherwise.

        network: a network or the path of an ONNX file. radius: the share of the family that is asked about. timeout
        (seconds), solver, seed, workers, memory (bytes), progress, proof: as in `mipverify.verify`. The witness holds
        the image; `statistics["parameters"]` tells what makes it. Raises InputError: a network of other inputs or
        classes.
        """
        network = loaded(network)
        mapped, inputs = self.within(radius).over(network)
        conditions = misclassified(label, network.output_size, mapped.input_size, targets=targets)
        verdict = verify(
            mapped,
            Specification((Case(inputs, conditions),), "robustness"),
            timeout=timeout,
            solver=solver,
            seed=seed,
            workers=workers,
            memory=memory,
            progress=progress,
            proof=proof,
        )
        if verdict.witness is None:
            return verdict
        witness, parameters = self._image_of(mapped, verdict.witness)
        return replace(verdict, witness=witness, statistics={**verdict.statistics, "parameters": parameters})

    def minimum_distortion(
        self,
        network: Network | str | Path,
        label: int,
        *,
        targets: Iterable[int] | None = None,
        gap: float = GAP,
        timeout: float = 300.0,
        max_distance: float | None = 1.0,
        solver: str = "auto",
        seed: int = 0,
        workers: int = 1,
        progress: Callable[[str, str], None] | None = None,
        proof: bool = False,
    ) -> Distortion:
        """The smallest share of the family that holds an image which is classified otherwise; 1 is the whole family.

        Other arguments as in `mipverify.minimum_distortion`.
        """
        mapped, _ = self.within(1).over(loaded(network))
        found = closest_violation(
            mapped,
            self.perturbation,
            label,
            targets=targets,
            gap=gap,
            timeout=timeout,
            max_distance=max_distance,
            solver=solver,
            seed=seed,
            workers=workers,
            progress=progress,
            proof=proof,
        )
        if found.witness is None:
            return found
        witness, parameters = self._image_of(mapped, found.witness)
        return replace(found, witness=witness, statistics={**found.statistics, "parameters": parameters})

    @staticmethod
    def _image_of(mapped: Network, witness: Witness) -> tuple[Witness, list[float]]:
        image = mapped.parameters.inputs(witness.input[None])[0]
        return Witness(image, witness.output), [float(v) for v in witness.input]


def blur(image: ArrayLike, size: int = 5, *, clip: tuple[float, float] | None = None) -> Family:
    """All images that a kernel of size x size makes of an image (..., height, width), as in MIPVerify.jl.

    The kernel's entries are not negative and sum to one; outside of the image there is 0. Parameters are the entries
    but the middle one, which is what is left to one (of a 1 x 1 kernel, one number without effect). Blurred images have
    no values that the image and 0 do not enclose, so that clipping is of use with noise only.

    Raises:
        InputError: an even or too small size, an image without rows and columns, a pixel outside of `clip`.
    """
    array = np.asarray(image, np.float64)
    columns = blur_columns(array, size)
    flat = _pixels(array, clip)
    others = np.delete(columns, size * size // 2, axis=1)
    if size == 1:
        still = Perturbation.around(np.zeros(1), scale=np.zeros(1), domain=None)
        return Family(scipy.sparse.csr_array(np.zeros_like(flat)[:, None]), flat, still, clip)
    count = others.shape[1]
    own = Perturbation.around(np.zeros(count), domain=(0, 1), constraints=[(np.ones(count), 1)])
    return Family(scipy.sparse.csr_array(others - flat[:, None]), flat, own, clip)


def brightness_and_contrast(
    image: ArrayLike, brightness: float = 0.2, contrast: float = 0.2, *, clip: tuple[float, float] | None = (0.0, 1.0)
) -> Family:
    """All images clip((1 + c) x + b) with |b| <= brightness and |c| <= contrast; either may be 0.

    Raises:
        InputError: a negative or infinite range, a pixel outside of `clip`.
    """
    for name, value in (("brightness", brightness), ("contrast", contrast)):
        if not 0 <= value < np.inf:
            raise InputError(f"{name} must be a finite number that is not negative: {value:g}")
    flat = _pixels(np.asarray(image, np.float64), clip)
    scale = np.array([brightness, contrast], np.float64)
    own = Perturbation.around(np.zeros(2), scale=scale, domain=None)
    return Family(scipy.sparse.csr_array(np.column_stack([np.ones_like(flat), flat])), flat, own, clip)


def mixture(image: ArrayLike, other: ArrayLike, *, clip: tuple[float, float] | None = None) -> Family:
    """All images (1 - t) image + t other with 0 <= t <= 1.

    Raises:
        InputError: images of different sizes, a pixel outside of `clip`.
    """
    first, second = (_pixels(np.asarray(v, np.float64), clip) for v in (image, other))
    if first.shape != second.shape:
        raise InputError(f"the images to mix have {first.size} and {second.size} values")
    own = Perturbation.around(np.zeros(1), domain=(0, 1))
    return Family(scipy.sparse.csr_array((second - first)[:, None]), first, own, clip)


def _pixels(image: np.ndarray, clip: tuple[float, float] | None) -> np.ndarray:
    """The values (n,) of an image, which must be finite and legal."""
    flat = image.reshape(-1)
    low, high = (-np.inf, np.inf) if clip is None else clip
    if not low < high:
        raise InputError(f"clip: {low:g} does not lie below {high:g}")
    for i in np.flatnonzero(~np.isfinite(flat) | (flat < low) | (flat > high)).tolist():
        raise InputError(f"image pixel {i} is {flat[i]}, outside of [{low:g}, {high:g}]")
    return flat
