"""Complete case distinctions: what holds in every case holds altogether.

A goal is a row under an assumption. It is reached by a fact about it, or split by the phase of one ReLU into two goals
that must both be reached. This ledger hands out nothing but what follows from the goals that were reached; in what
order, and by whom, is the search's affair.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

import numpy as np

from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import SEAL, Claim, RowBounds

Splits: TypeAlias = tuple[tuple[int, int, int], ...]


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

    def split(self, row: int, splits: Splits, relu: int, unit: int) -> None:
        """Put two goals in the place of one: the unit active, and inactive. KeyError where that goal is not open."""
        lower = self._lower.pop((row, splits))
        for sign in (1, -1):
            self._lower[row, (*splits, (relu, unit, sign))] = lower

    def learn(self, found: RowBounds, place: int, row: int) -> None:
        """Take over what entry `place` of a fact says of an open goal of a row, under its assumption.

        Above a ceiling of the row itself nothing is known of it
        but that. Raises ValueError where the fact is about something else, KeyError where its goal is not open.
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
        if lower > self._lower[goal]:  # not where it is no number
            self._lower[goal] = lower

    def forget(self, rows: Collection[int]) -> None:
        """Drop all goals of some rows: nothing is claimed of these any more."""
        self._reached[[int(row) for row in rows]] = -np.inf
        self._lower = {goal: lower for goal, lower in self._lower.items() if goal[0] not in rows}

    def close(self, row: int, splits: Splits) -> None:
        """Be done with a goal: what is known of it now is what it comes to. KeyError where it is not open."""
        self._reached[row] = min(self._reached[row], self._lower.pop((row, splits)))

    def lower(self, row: int, splits: Splits) -> float:
        """What is known of an open goal. KeyError where it is not open."""
        return self._lower[row, splits]

    def proven(self) -> RowBounds:
        """Lower bounds of all rows: the least of all their goals."""
        lower = self._reached.copy()
        for (row, _), bound in self._lower.items():
            lower[row] = min(lower[row], bound)
        return RowBounds(self._scope, self._claim, None, lower, seal=SEAL)
