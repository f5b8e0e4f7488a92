"""What a threat is: it turns a sample into the inputs that may stand in its place, and asks about all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mipverify.engine.distortion import GAP, Distortion
from mipverify.engine.threats.sample import Sample
from mipverify.engine.verdict import Verdict
from mipverify.network import Network


@dataclass(frozen=True)
class Limits:
    """How to look for an answer; none of it changes the question. As in `mipverify.verify`.

    proof: whether what holds must come with its proof, a lower bound of a distance too.
    """

    timeout: float = 300.0
    solver: str = "auto"
    seed: int = 0
    workers: int = 1
    progress: Callable[[str, str], None] | None = None
    arithmetic: str = "real"
    proof: bool = False

    def options(self, *without: str) -> dict[str, Any]:
        """They as keywords of the calls that they are for. without: those that a call does not take."""
        return {name: value for name, value in vars(self).items() if name not in without}


@dataclass(frozen=True)
class Threat(ABC):
    """What may be done to an image. text: as it is written, the same for threats that mean the same.

    `statistics` of what it answers hold `worst`, where or by which parameters the answer was reached, by name, and
    `parts`, how many input sets it took.
    """

    text: str

    #: Whether a threat has a radius: eps is then needed, or may be given.
    radius: ClassVar[Literal["needed", "allowed", "none"]] = "none"

    #: Whether proof files have words for the inputs that it makes.
    provable: ClassVar[bool] = True

    @abstractmethod
    def verify(self, network: Network, sample: Sample, limits: Limits) -> Verdict:
        """Whether any input that the threat makes of a sample is classified otherwise. Raises InputError."""

    def measured_in(self, norm: str) -> str:
        """What its distances are called: a norm where it has a radius, else shares of it."""
        return norm if self.radius == "needed" else f"share of {self.text}"

    @abstractmethod
    def distance(
        self, network: Network, sample: Sample, limits: Limits, gap: float = GAP, max_distance: float | None = None
    ) -> Distortion:
        """The smallest part of the threat that holds an input which is classified otherwise. Raises InputError."""
