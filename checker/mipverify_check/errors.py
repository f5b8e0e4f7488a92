"""What a check ends with when it does not verify."""

from __future__ import annotations


class BadInputError(Exception):
    """The network, the property or the way they were asked about cannot be read: nothing is said about the proof."""


class RejectedError(Exception):
    """The proof does not show what it claims. fact: its number, None where the fault lies outside of the facts."""

    def __init__(self, reason: str, fact: int | None = None):
        super().__init__(reason)
        self.reason, self.fact = reason, fact

    def __str__(self) -> str:
        return self.reason if self.fact is None else f"fact {self.fact}, {self.reason}"
