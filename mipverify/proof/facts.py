"""What a fact is, and what it speaks of.

A fact is an object that only the rules of this package make, each from facts before it and from evidence: numbers that
some search has found and that may be any numbers. Whatever is wrong with a search costs tightness, never truth. This is
the design of proof assistants [Milner 1979, LCF]. The rules, and why they are sound: docs/proofs.md.
"""

from __future__ import annotations

import os
from dataclasses import InitVar, dataclass, field

import numpy as np

from mipverify.network.operators import Array
from mipverify.proof.derivation import Derivation

SEAL = object()  # what the constructors of facts ask for; no other package may name it, and a test says so


@dataclass(frozen=True, eq=False)
class Sealed:
    """What is made by the rules of this package alone. Raises TypeError without the seal.

    derivation: how it was made, if that is recorded.
    """

    seal: InitVar[object] = field(default=None, kw_only=True)
    derivation: Derivation | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self, seal: object) -> None:
        if seal is not SEAL:
            raise TypeError(f"{type(self).__name__} is a fact: only the rules of mipverify.proof make it")


@dataclass(frozen=True)
class Ceiling:
    """The inputs at which `factor` times entry `unit` of `node` is at most `level`."""

    node: int
    unit: int
    factor: float
    level: float


@dataclass(frozen=True)
class Assumption:
    """The part of an input set that a fact speaks of.

    splits: (ReLU node, flat unit, +1 where it is active or -1 where inactive), from the root down: the pre-activation
    is >= 0, or <= 0. ceilings: rows that are low there.
    """

    splits: tuple[tuple[int, int, int], ...] = ()
    ceilings: tuple[Ceiling, ...] = ()

    def implies(self, other: Assumption) -> bool:
        """Whether every input that meets this one meets the other: it assumes all that the other does, and more."""
        starts_so = self.splits[: len(other.splits)] == other.splits
        same = self.ceilings is other.ceilings or all(ceiling in self.ceilings for ceiling in other.ceilings)
        return same and (starts_so or set(other.splits).issubset(self.splits))


EVERYWHERE = Assumption()


@dataclass(frozen=True, eq=False)
class Scope(Sealed):
    """Which input sets a fact speaks of, by identity: one box for each entry of a batch, cut by what is assumed.

    wider: keys of scopes of one box that contain each of these, whose facts therefore hold here. entrywise: keys of
    scopes of as many entries that assume less. assumptions: one for each entry; None where nothing is assumed. whole:
    key of the scope of one box that each of these is all of, but for its assumption; None where they are parts of it.
    """

    key: bytes = field(default_factory=lambda: os.urandom(16))
    wider: frozenset[bytes] = frozenset()
    entrywise: frozenset[bytes] = frozenset()
    assumptions: tuple[Assumption, ...] | None = None
    whole: bytes | None = None

    def has(self, fact: Scope) -> bool:
        """Whether a fact of the scope `fact` holds here as it stands: it is this one, or assumes less, or is around."""
        return fact.key == self.key or fact.key in self.entrywise or fact.key in self.wider

    def assumption(self, entry: int) -> Assumption:
        """What is assumed of an entry of the batch."""
        return EVERYWHERE if self.assumptions is None else self.assumptions[entry]


@dataclass(frozen=True, eq=False)
class Claim:
    """What rows (R,) stand for: `factors` (R,) times the flat entries `units` (R,) of `node`.

    With units (R, m), the largest of m entries of a node; factors are 1 then.
    """

    node: int
    units: np.ndarray
    factors: Array


@dataclass(frozen=True, eq=False)
class RowBounds(Sealed):
    """Lower bounds (R,) of rows over their boxes, -inf where nothing is known.

    claim: what the rows stand for; None where they are what their coefficients say. samples: (R,) entry of the batch
    for each row; None: row r speaks of entry r, or of the only one. of: key of the linear bounds that these are the
    minima of.
    """

    scope: Scope
    claim: Claim | None
    samples: np.ndarray | None
    lower: Array
    of: bytes | None = None

    def entries(self) -> np.ndarray:
        """The entry of the batch that each row speaks of (R,), where the batch has one for each row."""
        return np.arange(len(self.lower)) if self.samples is None else np.asarray(self.samples)


@dataclass(frozen=True, eq=False)
class UnitBounds(Sealed):
    """`lower <= value <= upper`, (R,) each, of the flat entries `units` (R,) of a node, in the entries `samples` of a
    batch (None: in its only one)."""

    scope: Scope
    node: int
    samples: np.ndarray | None
    units: np.ndarray
    lower: Array
    upper: Array
