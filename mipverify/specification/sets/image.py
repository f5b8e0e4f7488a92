"""The image of a set of parameters: inputs that are an affine function of a few numbers, possibly clipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipverify.network.parameters import ParameterMap
from mipverify.specification.linear_system import LinearSystem
from mipverify.specification.sets.box import Box
from mipverify.specification.sets.input_set import Floats, InputSet, Proposal

if TYPE_CHECKING:
    from mipverify.network import Network


@dataclass(frozen=True, eq=False)
class Image(InputSet):
    """All inputs clip(matrix @ p + offset) of parameters p; with noise, clip(clip(matrix @ p + offset) + noise @ p).

    An image is known by its parameters: what the interface calls an input is a p (k,) here, of which `over` makes the
    input of a network. So everything that is proven of networks, and every search, is of as many numbers as vary.

    matrix, noise: sparse (n, k), noise or None. offset: (n,). clip: smallest and largest value of an input, or None.
    """

    parameters: InputSet
    matrix: Any
    offset: Floats
    clip: tuple[float, float] | None = None
    noise: Any = None

    def over(self, network: Network) -> tuple[Network, InputSet]:
        """The network as a function of the parameters, and their set. Raises InputError where sizes differ."""
        return ParameterMap(network, self.matrix, self.offset, self.clip, self.noise).network(), self.parameters

    @property
    def box(self) -> Box:
        return self.parameters.box

    @property
    def is_box(self) -> bool:
        return self.parameters.is_box

    @property
    def center(self) -> Floats:
        return self.parameters.center

    def contains(self, x: ArrayLike) -> bool:
        return self.parameters.contains(x)

    def nearest_float32(self, points: ArrayLike) -> NDArray[np.float32]:
        return self.parameters.nearest_float32(points)

    def propose(self, rows: Floats, lower: Floats, upper: Floats) -> Proposal:
        return self.parameters.propose(rows, lower, upper)

    def linear_system(self, low: Floats, high: Floats) -> LinearSystem:
        return self.parameters.linear_system(low, high)

    def part(self, box: Box) -> Image:
        return Image(self.parameters.part(box), self.matrix, self.offset, self.clip, self.noise)

    def __str__(self) -> str:
        return f"images of {self.matrix.shape[0]} values under {self.parameters}"
