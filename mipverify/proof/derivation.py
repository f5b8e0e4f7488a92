"""Where facts come from: on demand each fact carries the rule, the premises and the evidence that made it.

Recording starts with `interval(..., record=True)`: what is made of a fact that has a derivation has one, too, as far as
its rule can be written down; the others have None, and cost nothing. Derivations hold no bounds, only evidence, and are
a directed acyclic graph: what the last fact does not reach is not needed. `mipverify/proof_file` writes them down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np

from mipverify.network.operators import Array

SLOPE_STEPS = 255  # slopes of recorded passes are multiples of one 255th: they fit into 8 bits

Values: TypeAlias = Mapping[int, tuple[np.ndarray, np.ndarray]]  # by ReLU node: flat units (U,), values (R, U)
Lines: TypeAlias = Literal["parallel", "adaptive"]
Splits: TypeAlias = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, eq=False)
class Derivation:
    """How one fact was made. It stays in the process that made it (`mipverify.parallel`): it is known by identity."""

    def stand_in(self) -> Derivation:
        """Nothing of it is looked at elsewhere."""
        return Derivation()


@dataclass(frozen=True, eq=False)
class Started(Derivation):
    """Bounds by interval arithmetic over input boxes."""


@dataclass(frozen=True, eq=False)
class Tightened(Derivation):
    """Bounds `of`, with what was found of single entries."""

    of: Derivation
    found: tuple[Derivation, ...]


@dataclass(frozen=True, eq=False)
class Selected(Derivation):
    """Entries `samples` of bounds `of` of a batch."""

    of: Derivation
    samples: np.ndarray


@dataclass(frozen=True, eq=False)
class Assumed(Derivation):
    """Bounds `of` one input set under the splits of each entry.

    own: where entries have bounds of their own in the place of these, the batch that has them and which entry.
    """

    of: Derivation
    splits: tuple[Splits, ...]
    own: tuple[tuple[Derivation, int] | None, ...] = ()

    def take(self, entries: np.ndarray) -> Assumed:
        """Of some entries, by index."""
        some = [int(k) for k in entries]
        own = tuple(self.own[k] for k in some) if self.own else ()
        return Assumed(self.of, tuple(self.splits[k] for k in some), own if any(own) else ())


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer of a reduced network: its ReLU node and pre-activation, those of the original, and which units it has."""

    relu: int
    source: int
    original: int
    original_source: int
    units: np.ndarray


@dataclass(frozen=True, eq=False)
class ReducedTo(Derivation):
    """Bounds of the network that `of` was reduced to. output: its output node; original: that of the whole network."""

    of: Derivation
    layers: tuple[Layer, ...]
    output: int
    original: int

    def stand_in(self) -> ReducedTo:
        """Of the same kind, which tells whether cuts can be recorded."""
        return ReducedTo(Derivation(), (), self.output, self.original)


@dataclass(frozen=True, eq=False)
class Lifted(Derivation):
    """What is known of a reduced network, said of the original."""

    of: Derivation


@dataclass(frozen=True, eq=False)
class Pre(Derivation):
    """Entries `units` (R,) of a node, as bounds have them. entry: of the batch, None in a batch of one."""

    within: Derivation
    node: int
    units: np.ndarray
    entry: int | None = None


@dataclass(frozen=True, eq=False)
class CutSets(Derivation):
    """Cuts of a ReLU layer of a reduced network within its bounds: units, and the points at which they are deepest.

    Cuts that all rows share have units (T,), each row's own have (R, T); so have phases, uint8 multiples of
    1 / SLOPE_STEPS, and point, which of positions each belongs to. positions: ([R,] K, n), where in its interval each
    value is that the layer reads, uint8 in the same unit.
    """

    within: Derivation
    units: np.ndarray
    phases: np.ndarray
    point: np.ndarray
    positions: np.ndarray

    def stand_in(self) -> CutSets:
        """All of it, since cuts are chosen from it."""
        return replace(self)

    def take(self, keep: np.ndarray) -> CutSets:
        """Some of each row's own cuts, by index (R, T)."""
        units, phases, point = (np.take_along_axis(v, keep, axis=1) for v in (self.units, self.phases, self.point))
        return CutSets(self.within, units, phases, point, self.positions)

    def rows(self, keep: np.ndarray) -> CutSets:
        """The cuts of some rows, by index."""
        units, phases, point = self.units[keep], self.phases[keep], self.point[keep]
        return CutSets(self.within, units, phases, point, self.positions[keep])

    def join(self, other: CutSets) -> CutSets:
        """The cuts of both, row by row."""
        behind = other.point + self.positions.shape[1]
        pairs = (self.units, other.units), (self.phases, other.phases), (self.point, behind)
        units, phases, point = (np.concatenate(pair, axis=1) for pair in pairs)
        return CutSets(self.within, units, phases, point, np.concatenate([self.positions, other.positions], axis=1))

    def of_row(self, row: int, keep: np.ndarray) -> CutSets:
        """Some cuts of one row, by index, as cuts that all share."""
        units, phases, point = (v[row][keep] for v in (self.units, self.phases, self.point))
        return CutSets(self.within, units, phases, point, self.positions[row])


@dataclass(frozen=True, eq=False)
class Pass(Derivation):
    """Rows passed back within bounds. node, units, factors: what they stand for, (R,), 1 or -1 times an entry; node
    None: they began as zero.

    samples: the entry of each row in a batch, None in a batch of one. lines: slopes where there are no others.
    slopes: multiples of 1 / SLOPE_STEPS as uint8. multipliers: float32. two_sided: the negated rows were bounded, too.
    cuts: by ReLU node, cuts and their multipliers (R, T), float32. inequalities: multipliers (R, m) of those that the
    input set is cut by, float32.
    """

    within: Derivation
    node: int | None
    units: np.ndarray
    factors: Array
    samples: np.ndarray | None
    lines: Lines = "adaptive"
    slopes: Values = field(default_factory=dict)
    multipliers: Values = field(default_factory=dict)
    two_sided: bool = False
    cuts: Mapping[int, tuple[CutSets, np.ndarray]] = field(default_factory=dict)
    inequalities: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Confined(Derivation):
    """Bounds `of` a batch, each entry confined to where its row of `low` is at most its own of `levels` (K,).

    split: rows that are not positive by the splits of their entries; like that of `low`, they end in planes. A file has
    them as further inequalities, so that no proof clips a set that inequalities cut already.
    """

    of: Assumed
    low: Pass
    levels: np.ndarray
    split: tuple[Pass, ...]


@dataclass(frozen=True, eq=False)
class ClippedRows(Derivation):
    """Entries `units` (R,) of a node times `factors` 1 or -1, where the planes of their entries `samples` (R,) hold.

    Passed back with adaptive lines. multipliers (R, most planes of an entry): of the planes, float32, the row's first,
    as one of an entry times 1 or -1.
    """

    node: int
    units: np.ndarray
    factors: Array
    samples: np.ndarray
    multipliers: np.ndarray


@dataclass(frozen=True, eq=False)
class Both(Derivation):
    """Bounds of entries from below, and from above by the negated rows, in the same order."""

    lower: Derivation
    upper: Derivation


@dataclass(frozen=True, eq=False)
class Empty(Derivation):
    """Rows are above everything, because `zero` (a pass of rows that began as zero) ended above it."""

    zero: Derivation


@dataclass(frozen=True, eq=False)
class Contradicted(Derivation):
    """Rows are above everything, because lower bounds exceed upper ones."""

    within: Derivation


@dataclass(frozen=True, eq=False)
class Leaf:
    """A case: its splits, and row `place` of what is known of it (None: nothing)."""

    splits: Splits
    known: Derivation | None
    place: int


@dataclass(frozen=True, eq=False)
class Cased(Derivation):
    """Rows by complete case distinctions: the leaves of each row, over the input set of bounds `of`."""

    of: Derivation
    node: int
    units: np.ndarray
    factors: Array
    leaves: tuple[Sequence[Leaf], ...]


@dataclass(frozen=True, eq=False)
class Semidefinite(Derivation):
    """Rows `units` (K,) of the output `node` by semidefinite bounds, each under the splits of its own.

    relu, open_units (U,): the only units that are unstable within. shares (K, U), alpha (K, n), beta (K, U + 1), all
    float32.
    """

    within: Derivation
    node: int
    units: np.ndarray
    splits: tuple[Splits, ...]
    relu: int
    open_units: np.ndarray
    shares: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
