"""Which epoch's network is kept: the one with the best verified accuracy on images held out of the training."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Best:
    """The best network so far; `state` is what a checkpoint holds of it."""

    def __init__(self) -> None:
        self.epoch = 0  # epochs that were over; 0 is none
        self.verified = -1.0
        self.weights: dict[str, Tensor] = {}

    def consider(self, epoch: int, verified: float, module: nn.Module) -> None:
        """Keep a copy of the module's weights after so many epochs if it is better; of equals, the later one."""
        if verified >= self.verified:
            self.epoch, self.verified = epoch, verified
            self.weights = {name: value.detach().clone() for name, value in module.state_dict().items()}

    def is_stale(self, epoch: int, grown: float, patience: int) -> bool:
        """Whether `patience` epochs brought no better one; counted from `grown`, the epochs until the full radius."""
        return patience > 0 and epoch - max(self.epoch, grown) >= patience

    def state(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {"epoch": self.epoch, "verified": self.verified, "weights": self.weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.epoch, self.verified, self.weights = int(state["epoch"]), float(state["verified"]), state["weights"]
