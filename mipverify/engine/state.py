"""What has been learnt of a problem so far. It grows by updates alone, which the driver of the cascade takes over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mipverify.engine.problem import Problem
from mipverify.engine.verdict import Witness
from mipverify.proof.bounds import Bounds
from mipverify.proof.derivation import Derivation
from mipverify.proof.facts import RowBounds, UnitBounds
from mipverify.proof.reduction import Reduced, reduce

if TYPE_CHECKING:
    from mipverify.solvers.branch_and_bound.search import PhaseSearch

Fact: TypeAlias = Bounds | RowBounds | UnitBounds


@dataclass(frozen=True)
class Trusted:
    """A lower bound of a condition's margin that is taken on somebody's word."""

    condition: int
    lower: float
    whom: str


@dataclass(frozen=True, eq=False)
class Trees:
    """Searches on ReLU phases that are under way, and the bounds they start from. cut: whether cuts were looked for."""

    bounds: Bounds
    searches: tuple[PhaseSearch, ...] = ()
    cut: bool = False


@dataclass(frozen=True, eq=False)
class Update:
    """What a stage has come to; what it does not name stays as it is.

    facts: what is proven: bounds of all nodes, of rows or of single units. trusted: on a solver's word. hints: inputs
    (H, n) that bounds suggest as starting points of attacks. nodes: of searches, to be added; binaries: of a program.
    reason: why the question is open still. note: why something is done the way it is.
    cut_gain: the share of the width of intermediate bounds that cuts take away. hidden_cut: intermediate bounds were
    tightened by cuts. tightened_harder: they have had their further passes. programmed: a MILP solver was tried.
    trees: searches under way; semidefinite: those with semidefinite bounds.
    """

    facts: tuple[Fact, ...] = ()
    trusted: Trusted | None = None
    witness: Witness | None = None
    hints: np.ndarray | None = None
    nodes: int = 0
    binaries: int = 0
    reason: str | None = None
    note: str = ""
    cut_gain: float | None = None
    hidden_cut: bool = False
    tightened_harder: bool = False
    programmed: bool = False
    trees: Trees | None = None
    semidefinite: tuple[PhaseSearch, ...] | None = None


@dataclass(eq=False)
class State:
    """What is known of `problem`. Stages read it; `learn` is the only way to change it.

    lower: proven lower bounds of the margins (k,). bounds: of every node of the margin network over the input set,
    batch 1, once a stage has made them. grounds: by condition, the derivation of its best bound, and which of its rows,
    where a proof is to be written. The other fields are those of `Update`, put together.
    """

    problem: Problem
    lower: np.ndarray = field(init=False)
    bounds: Bounds | None = None
    witness: Witness | None = None
    trusted: list[str] = field(default_factory=list)
    hints: np.ndarray = field(init=False)
    nodes: int = 0
    binaries: int = 0
    reason: str = ""
    cut_gain: float | None = None
    hidden_cut: bool = False
    tightened_harder: bool = False
    programmed: bool = False
    trees: Trees | None = None
    semidefinite: tuple[PhaseSearch, ...] = ()
    grounds: dict[int, tuple[Derivation, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        conditions = self.problem.case.conditions
        self.lower = np.full(len(conditions), -np.inf)
        self.hints = np.zeros((0, self.problem.network.input_size))
        # A condition of strict rows only is not met where its margin, the largest of theirs, is zero.
        self._excluded_at_zero = np.array([bool(c.strict.all()) for c in conditions])
        self._reduced: tuple[Bounds, Reduced] | None = None

    @property
    def proven(self) -> Bounds:
        """`bounds`; raises LookupError before any stage has made some."""
        if self.bounds is None:
            raise LookupError("no stage has made bounds yet")
        return self.bounds

    def open(self) -> np.ndarray:
        """Indices of the conditions that no bound excludes yet."""
        return np.flatnonzero(~((self.lower > 0) | (self._excluded_at_zero & (self.lower >= 0))))

    def decided(self) -> bool:
        """Whether there is a witness or no open condition."""
        return self.witness is not None or not len(self.open())

    def reduced(self, stop: Callable[[], bool]) -> Reduced:
        """The margin network reduced to what is unstable within `bounds`, made once for them.

        Raises Stopped where `stop` returns true before it is done.
        """
        if self._reduced is None or self._reduced[0] is not self.proven:
            self._reduced = self.proven, reduce(self.proven, stop)
        return self._reduced[1]

    def learn(self, update: Update) -> None:
        """Take over what a stage has come to. Raises ValueError where a fact is about something else."""
        for fact in update.facts:
            if isinstance(fact, Bounds):
                self._learn_bounds(fact)
            elif isinstance(fact, UnitBounds):
                self._learn_units(fact)
            else:
                self._learn_rows(fact)
        word = update.trusted
        if word is not None and word.lower > self.lower[word.condition] and not self.problem.record:
            self._raise(np.array([word.condition]), np.array([word.lower]), None)
            self.trusted.append(word.whom)
        for name in ("witness", "hints", "reason", "cut_gain", "trees", "semidefinite"):
            found = getattr(update, name)
            if found is not None:
                setattr(self, name, found)
        self.nodes, self.binaries = self.nodes + update.nodes, max(self.binaries, update.binaries)
        self.hidden_cut |= update.hidden_cut
        self.tightened_harder |= update.tightened_harder
        self.programmed |= update.programmed

    def _learn_bounds(self, fact: Bounds) -> None:
        """Of all nodes: the first ones over the whole input set, later ones of the same scope."""
        lower, upper = self.problem.box
        wide = bool((fact.lower[0] <= lower).all() and (fact.upper[0] >= upper).all())
        same = self.bounds is None or fact.scope.key == self.bounds.scope.key
        if fact.network is not self.problem.margins or fact.batch != 1 or fact.scope.assumptions or not (wide and same):
            raise ValueError("the bounds are not about this problem's input set")
        self.bounds = fact

    def _learn_rows(self, fact: RowBounds) -> None:
        """Of margins, over the whole input set or that of the reduced network."""
        if self._reduced is not None and fact.scope.key == self._reduced[1].bounds.scope.key:
            fact = self._reduced[1].lifted_rows(fact)
        claim = fact.claim
        if claim is None or not self.proven.scope.has(fact.scope) or fact.scope.assumptions:
            raise ValueError("the fact is not about this problem's input set")
        if not (np.asarray(claim.factors) == 1).all():
            raise ValueError("the fact is about multiples of margins")
        if claim.node == self.problem.margins.output and claim.units.size == len(fact.lower):
            self._raise(claim.units.reshape(-1), fact.lower, fact.derivation)
            return
        for units, lower in zip(claim.units.reshape(len(fact.lower), -1).tolist(), fact.lower.tolist(), strict=True):
            condition = self.problem.condition_of.get((claim.node, tuple(sorted(units))))
            if condition is None:
                raise ValueError("the fact is about something else than a margin")
            self._raise(np.array([condition]), np.array([lower]), None)

    def _learn_units(self, fact: UnitBounds) -> None:
        """Of margins as entries of the output, or of rows of conditions: a strict one that is nowhere negative is
        never met, nor is its condition."""
        problem = self.problem
        if fact.node not in (problem.margins.output, problem.row_node) or not self.proven.scope.has(fact.scope):
            raise ValueError("the fact is about something else than margins or rows of conditions")
        if fact.node == problem.margins.output:
            self._raise(fact.units, fact.lower, fact.derivation)
        if fact.node == problem.row_node and not problem.record and (fact.lower >= 0).any():
            shown = [c for unit in fact.units[fact.lower >= 0] for c in problem.strict_rows.get(int(unit), ())]
            self._excluded_at_zero[shown] = True
            self._raise(np.array(shown, int), np.zeros(len(shown)), None)

    def _raise(self, conditions: np.ndarray, lower: np.ndarray, how: Derivation | None) -> None:
        if self.problem.record and how is None:
            return
        if how is not None:
            for place in np.flatnonzero(lower > self.lower[conditions]).tolist():
                self.grounds[int(conditions[place])] = how, place
        # NaN counts as nothing proven.
        self.lower[conditions] = np.fmax(self.lower[conditions], lower)
