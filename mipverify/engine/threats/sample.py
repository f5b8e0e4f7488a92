"""One sample of a data set, and what is asked about it besides the threat."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipverify.errors import InputError
from mipverify.specification import Condition, Dataset
from mipverify.specification.normalization import Normalization
from mipverify.specification.robustness import misclassified
from mipverify.specification.threats.pixels import Pixels


@dataclass(frozen=True, eq=False)
class Sample:
    """An image of a network's input shape and its label.

    eps: radius of a threat that has one, read exactly, or None. norm, domain, mean, std, targets: as in `robustness`.
    stored: the shape in which a file holds the image. other: the image of another index, where there are more.
    """

    image: NDArray[Any]
    label: int
    eps: object = None
    norm: str = "linf"
    domain: tuple[object, object] | None = (0, 1)
    mean: object = 0
    std: object = 1
    targets: tuple[int, ...] | None = None
    stored: tuple[int, ...] = ()
    other: Callable[[int], NDArray[Any]] | None = None

    @staticmethod
    def of(
        dataset: Dataset,
        index: int,
        label: int,
        eps: object = None,
        norm: str = "linf",
        targets: Iterable[int] | None = None,
    ) -> Sample:
        """A sample of a data set that is fitted to its network."""
        return Sample(
            dataset.image(index),
            label,
            eps,
            norm,
            dataset.preprocessing.domain,
            dataset.mean,
            dataset.std,
            None if targets is None else tuple(targets),
            dataset.stored.shape[1:],
            dataset.image,
        )

    @property
    def pixels(self) -> Pixels:
        """Which entry is which pixel. Raises InputError where the input is no image."""
        return Pixels.of(np.shape(self.image), self.stored)

    @property
    def normalization(self) -> Normalization | None:
        """What lies between pixels and the network's inputs."""
        return Normalization.of(self.mean, self.std, np.shape(self.image))

    def conditions(self, num_classes: int, margin: object = 0) -> tuple[Condition, ...]:
        """What violates: a target's score reaches the label's."""
        size = int(np.asarray(self.image).size)
        return misclassified(self.label, num_classes, size, targets=self.targets, margin=margin)

    def radius(self, threat: str) -> object:
        """`eps`; raises InputError where there is none."""
        if self.eps is None:
            raise InputError(f"threat {threat}: needs a radius (eps)")
        return self.eps

    def without_radius(self, threat: str) -> None:
        """Raise InputError where a radius or another norm was given to a threat that has none."""
        if self.eps is not None:
            raise InputError(f"threat {threat}: takes no radius (eps): it says itself how far it goes")
        if self.norm != "linf":
            raise InputError(f"threat {threat}: takes no norm")
