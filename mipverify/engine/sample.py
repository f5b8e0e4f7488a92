"""What is known about one sample of a test set once it has been looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SampleVerdict = Literal["misclassified", "holds", "violated", "unknown"]

VERDICTS: tuple[SampleVerdict, ...] = ("misclassified", "holds", "violated", "unknown")

# The reason of a sample that the batched stages left undecided and that nothing else has tried yet.
OPEN = "open"


@dataclass(frozen=True, slots=True, eq=False)
class SampleResult:
    """The verdict on one sample of a data set, with what led to it.

    `adversarial` is the counterexample, (n,) float32 in the order of the flattened input, for `violated` only;
    `adversarial_label` what the network makes of it. `unstable` counts the ReLUs that no bound could fix, per layer.
    `margin_lower_bound` is a sound lower bound of `y_label - max y_other` over the set, where one was computed.
    """

    index: int
    label: int
    predicted: int
    verdict: SampleVerdict
    stage: str
    seconds: float
    margin_lower_bound: float | None = None
    adversarial: NDArray[np.float32] | None = None
    adversarial_label: int | None = None
    unstable: tuple[int, ...] = ()
    nodes: int = 0
    reason: str = ""
    trusted: tuple[str, ...] = ()

    @property
    def decided(self) -> bool:
        """Whether nothing that is run later could say more."""
        return self.verdict != "unknown"

    @property
    def open(self) -> bool:
        """Whether the batched stages ended without a decision, so that the sample is owed work of its own."""
        return self.verdict == "unknown" and self.reason == OPEN
