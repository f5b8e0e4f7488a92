"""The one interface of input sets: what bounds, programs, attacks and verdicts ask of the inputs they speak of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mipverify.specification.linear_system import LinearSystem

if TYPE_CHECKING:
    from mipverify.network import Network
    from mipverify.specification.sets.box import Box

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Proposal:
    """Where rows (R, n) are least over parts of a set, as a search has it. Kinds of sets add the evidence that rules of
    `mipverify.proof` make a bound of; it may be any numbers.

    points: (R, n), near which the minima lie.
    """

    points: Floats


class InputSet(ABC):
    """A bounded set of inputs (n,), flat in row-major order, which is known exactly.

    It lies within its `box`; its *part* between lower and upper (n,) are its points there. What encloses it is rounded
    outward, for proofs; what is a witness is a float32 input that belongs to it exactly as it was stated.
    """

    @property
    @abstractmethod
    def box(self) -> Box:
        """A box around the set."""

    @property
    def size(self) -> int:
        """Number of inputs n."""
        return self.box.size

    @property
    def is_box(self) -> bool:
        """Whether nothing is cut out of the box."""
        return False

    @property
    def center(self) -> Floats:
        """A point (n,) in the middle of the set, up to rounding."""
        return self.box.center

    def over(self, network: Network) -> tuple[Network, InputSet]:
        """The network and the set that a question about a network over this set is asked of."""
        return network, self

    @abstractmethod
    def contains(self, x: ArrayLike) -> bool:
        """Whether a float32 input, of any shape, belongs to the set as it was stated, decided exactly."""

    @abstractmethod
    def nearest_float32(self, points: ArrayLike) -> NDArray[np.float32]:
        """Points (R, n) of any float type moved to float32 inputs of the set nearby; it holds those that do not move.

        For searching: a point may be left outside where none inside is found.
        """

    @abstractmethod
    def propose(self, rows: Floats, lower: Floats, upper: Floats) -> Proposal:
        """Where rows (R, n) are least over the parts of the set between lower and upper (R or 1, n)."""

    @abstractmethod
    def linear_system(self, low: Floats, high: Floats) -> LinearSystem:
        """What holds on the part between low and high (n,) beyond that, for linear solvers."""

    @abstractmethod
    def part(self, box: Box) -> InputSet:
        """What of the set lies in a box within its own."""

    def halves(self, coordinate: int) -> tuple[InputSet, InputSet]:
        """Two parts that cover the set, on either side of the middle of a coordinate.

        Raises ValueError where no float32 lies between the ends of the coordinate.
        """
        low, high = self.box.split(coordinate)
        return self.part(low), self.part(high)

    @abstractmethod
    def __str__(self) -> str:
        """The set in words."""
