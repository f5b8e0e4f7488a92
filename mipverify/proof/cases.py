"""Complete case distinctions: what holds in every case holds altogether.

A goal is a row under an assumption. It is reached by a fact about it, or split by the phase of one ReLU into two goals
that must both be reached. This ledger hands out nothing but what follows from the goals that were reached; in what
order, and by whom, is the search's affair.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from mipverify.proof.bounds import Bounds
from mipverify.proof.derivation import Cased, Derivation, Leaf, Splits
from mipverify.proof.facts import SEAL, Claim, RowBounds


class PhaseCases:
    """The goals of some rows (R,) over one input set, all open at first.

    bounds: of the input set (batch 1), under which nothing is assumed. claim: what the rows stand for.
    """

    def __init__(self, bounds: Bounds, claim: Claim):
        if bounds.batch != 1 or bounds.scope.assumptions is not None:
            raise ValueError("cases are told apart within bounds of one input set, under which nothing is assumed")
        self._scope, self._claim = bounds.scope, claim
        self._lower: dict[tuple[int, Splits], float] = {(row, ()): float("-inf") for row in range(len(claim.units))}
        self._reached = np.full(len(claim.units), np.inf)
        self._of = bounds.derivation
        self._known: dict[tuple[int, Splits], Leaf] = {}  # of open goals, and of closed ones, where that is recorded
        self._closed: list[list[Leaf]] = [[] for _ in range(len(claim.units))]

    def split(self, row: int, splits: Splits, relu: int, unit: int) -> None:
        """Put two goals in the place of one: the unit active, and inactive. KeyError where that goal is not open."""
        lower, known = self._lower.pop((row, splits)), self._known.pop((row, splits), None)
        for sign in (1, -1):
            goal = row, (*splits, (relu, unit, sign))
            self._lower[goal] = lower
            if known is not None:
                self._known[goal] = known

    def learn(self, found: RowBounds, place: int, row: int) -> None:
        """Take over what entry `place` of a fact says of an open goal of a row, under its assumption.

        Above a ceiling of the row itself nothing is known of it but that. Where derivations are recorded, a fact
        without one tells nothing. Raises ValueError where the fact is about something else, KeyError where its goal is
        not open.
        """
        claim = found.claim
        if claim is None or found.samples is not None or claim.node != self._claim.node:
            raise ValueError("the fact is about other rows")
        if self._scope.key not in (found.scope.whole, found.scope.key):
            raise ValueError("the fact is about other input sets")
        unit, factor = int(self._claim.units[row]), float(self._claim.factors[row])
        if int(claim.units[place]) != unit or float(claim.factors[place]) != factor:
            raise ValueError("the fact is about another row")
        assumption, lower = found.scope.assumption(place), float(found.lower[place])
        for ceiling in assumption.ceilings:
            if (ceiling.node, ceiling.unit, ceiling.factor) != (claim.node, unit, factor):
                raise ValueError("the fact is about inputs at which some other row is low")
            lower = min(lower, ceiling.level)
        goal = row, assumption.splits
        if self._of is not None and found.derivation is None:
            return
        if lower > self._lower[goal]:  # not where it is no number
            self._lower[goal] = lower
            if self._of is not None:
                self._known[goal] = Leaf(assumption.splits, found.derivation, place)

    def forget(self, rows: Collection[int]) -> None:
        """Drop all goals of some rows: nothing is claimed of these any more."""
        self._reached[[int(row) for row in rows]] = -np.inf
        self._lower = {goal: lower for goal, lower in self._lower.items() if goal[0] not in rows}
        self._known = {goal: leaf for goal, leaf in self._known.items() if goal[0] not in rows}

    def close(self, row: int, splits: Splits) -> None:
        """Be done with a goal: what is known of it now is what it comes to. KeyError where it is not open."""
        self._reached[row] = min(self._reached[row], self._lower.pop((row, splits)))
        if self._of is not None:
            self._closed[row].append(self._known.pop((row, splits), Leaf(splits, None, 0)))

    def lower(self, row: int, splits: Splits) -> float:
        """What is known of an open goal. KeyError where it is not open."""
        return self._lower[row, splits]

    def proven(self) -> RowBounds:
        """Lower bounds of all rows: the least of all their goals."""
        lower = self._reached.copy()
        for (row, _), bound in self._lower.items():
            lower[row] = min(lower[row], bound)
        return RowBounds(self._scope, self._claim, None, lower, seal=SEAL, derivation=self._derivation())

    def settled(self) -> RowBounds:
        """The same of rows that are positive; nothing of the others, whose trees a derivation would have to hold."""
        proven = self.proven()
        lower = np.where(proven.lower > 0, proven.lower, -np.inf)
        return RowBounds(self._scope, self._claim, None, lower, seal=SEAL, derivation=self._derivation(lower > 0))

    def _derivation(self, some: np.ndarray | None = None) -> Derivation | None:
        """How the rows were proven, or some of them: by mask."""
        if self._of is None:
            return None
        leaves = [[*closed] for closed in self._closed]
        for row, splits in self._lower:
            leaves[row].append(self._known.get((row, splits), Leaf(splits, None, 0)))
        if some is not None:
            leaves = [own if wanted else [] for own, wanted in zip(leaves, some, strict=True)]
        claim = self._claim
        return Cased(self._of, claim.node, claim.units, np.asarray(claim.factors), tuple(leaves))
