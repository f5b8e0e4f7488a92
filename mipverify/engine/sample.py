"""What is known about one sample of a test set once it has been looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SampleVerdict = Literal["misclassified", "holds", "violated", "unknown"]

VERDICTS: tuple[SampleVerdict, ...] = ("misclassified", "holds", "violated", "unknown")

# What became of the proof file of a sample: there is none, it is kept, or a checker has judged it.
ProofState = Literal["", "kept", "verified", "rejected"]

PROOF_STATES: tuple[ProofState, ...] = ("", "kept", "verified", "rejected")

# The reason of a sample that the batched stages left undecided and that nothing else has tried yet.
OPEN = "open"


def other_class(output: NDArray[Any], label: int) -> int:
    """The class that an original's output for a wrong input names; a tie with `label` counts for the other class.

    output: scores, or the class alone where the file ends in an ArgMax.
    """
    scores = output.reshape(-1)
    if len(scores) == 1:
        return int(scores[0])
    return max((k for k in range(len(scores)) if k != label), key=lambda k: float(scores[k]))


@dataclass(frozen=True, slots=True, eq=False)
class SampleResult:
    """The verdict on one sample of a data set, with what led to it.

    `adversarial` is the counterexample, (n,) float32 in the order of the flattened input, for `violated` only;
    `adversarial_label` what the network makes of it. `unstable` counts the ReLUs that no bound could fix, per layer.
    `margin_lower_bound` is a sound lower bound of `y_label - max y_other` over the set, where one was computed.
    `eps`: the radius that the verdict is about; `decided_at`: the one that was asked about, where the verdict follows
    from that one's.
    `worst`: of a threat beyond balls, where or by which parameters the answer was reached; `parts`: of how many input
    sets it was made.
    `proof`: the file that shows that it holds, if one was asked for; kept beside the results, not among them.
    `proof_state`: what became of that file; `proof_check`: which checker verified it, by which arithmetic, or why it
    did not; `proof_sha256`: of the file that was judged.
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
    proof: bytes | None = None
    proof_state: ProofState = ""
    proof_check: str = ""
    proof_sha256: str = ""
    eps: str = ""
    decided_at: str = ""
    worst: str = ""
    parts: int = 1

    def __repr__(self) -> str:
        found = "" if self.adversarial_label is None else f" as {self.adversarial_label}"
        return (
            f"SampleResult({self.index}, label {self.label}: {self.verdict}{found}, {self.stage}, {self.seconds:.3g} s)"
        )

    @property
    def decided(self) -> bool:
        """Whether nothing that is run later could say more."""
        return self.verdict != "unknown"

    @property
    def open(self) -> bool:
        """Whether the batched stages ended without a decision, so that the sample is owed work of its own."""
        return self.verdict == "unknown" and self.reason == OPEN

    @property
    def hardness(self) -> float:
        """How hard an open sample is expected to be: how far its bound is from 0, and how many ReLUs are undecided."""
        margin = self.margin_lower_bound
        return (-margin if margin is not None else 1e9) + 1e-6 * sum(self.unstable)
