"""What has been learnt of a problem so far. It grows by updates alone, which the driver of the cascade takes over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mipverify.engine.problem import Problem
from mipverify.engine.verdict import Witness
from mipverify.proof.backward import lower_sides
from mipverify.proof.bounds import Bounds
from mipverify.proof.derivation import Derivation, Pre
from mipverify.proof.facts import Claim, RowBounds, UnitBounds
from mipverify.proof.input_minimum import lies_in
from mipverify.proof.interval import tighten
from mipverify.proof.reduction import Reduced, reduce

if TYPE_CHECKING:
    from mipverify.solvers.branch_and_bound.search import PhaseSearch

Grounds: TypeAlias = dict[int, tuple[Derivation, int]]
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

    facts: what is proven: bounds of all nodes, of rows or of single units. trusted: on a solver's word. witness: for
    the input set `entry`. hints: inputs (H, n) that bounds suggest as starting points of attacks; hinted: for which
    pairs of an input set and a condition, (H,) numbers entry * k + condition, None for the conditions of one.
    nodes: of searches, to be added; binaries: of a program.
    reason: why the question is open still. note: why something is done the way it is.
    cut_gain: the share of the width of intermediate bounds that cuts take away. hidden_cut: intermediate bounds were
    tightened by cuts. passes: kinds of further passes that they have had. programmed: a MILP solver was tried.
    trees: searches under way; semidefinite: those with semidefinite bounds.
    """

    facts: tuple[Fact, ...] = ()
    trusted: Trusted | None = None
    witness: Witness | None = None
    entry: int = 0
    hints: np.ndarray | None = None
    hinted: np.ndarray | None = None
    nodes: int = 0
    binaries: int = 0
    reason: str | None = None
    note: str = ""
    cut_gain: float | None = None
    hidden_cut: bool = False
    passes: int = 0
    programmed: bool = False
    trees: Trees | None = None
    semidefinite: tuple[PhaseSearch, ...] | None = None


@dataclass(eq=False)
class State:
    """What is known of `problem`. Stages read it; `learn` is the only way to change it.

    margins: proven lower bounds of the margins (entries, k). bounds: of every node of the margin network over the input
    sets, once a stage has made them. witnesses: by entry. grounds: by condition, the derivation of its best bound, and
    which of its rows, where a proof is to be written; of several input sets by entry * k + condition, that of the first
    bound above zero. The other fields are those of `Update`, put together.
    """

    problem: Problem
    margins: np.ndarray = field(init=False)
    bounds: Bounds | None = None
    witnesses: dict[int, Witness] = field(default_factory=dict)
    trusted: list[str] = field(default_factory=list)
    hints: np.ndarray = field(init=False)
    hinted: np.ndarray | None = None
    nodes: int = 0
    binaries: int = 0
    reason: str = ""
    cut_gain: float | None = None
    hidden_cut: bool = False
    passes: int = 0
    programmed: bool = False
    trees: Trees | None = None
    semidefinite: tuple[PhaseSearch, ...] = ()
    grounds: Grounds = field(default_factory=dict)

    def __post_init__(self) -> None:
        conditions = self.problem.conditions
        self.margins = np.full((self.problem.entries, len(conditions)), -np.inf)
        self.hints = np.zeros((0, self.problem.network.input_size))
        # A condition of strict rows only is not met where its margin, the largest of theirs, is zero.
        self._excluded_at_zero = np.array([bool(c.strict.all()) for c in conditions])
        self._reductions: list[tuple[Bounds, Reduced]] = []

    @property
    def proven(self) -> Bounds:
        """`bounds`; raises LookupError before any stage has made some."""
        if self.bounds is None:
            raise LookupError("no stage has made bounds yet")
        return self.bounds

    @property
    def lower(self) -> np.ndarray:
        """The lower bounds (k,) of the margins of the only input set."""
        lower: np.ndarray
        (lower,) = self.margins
        return lower

    @property
    def witness(self) -> Witness | None:
        """The counterexample to the only input set, if there is one."""
        return self.witnesses.get(0)

    def open(self) -> np.ndarray:
        """Indices of the conditions on the only input set that no bound excludes yet."""
        (open_,) = self._open()
        return np.flatnonzero(open_)

    def open_at(self, entry: int) -> np.ndarray:
        """The same for one of several input sets."""
        return np.flatnonzero(self._open()[entry])

    def open_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of an input set without a witness and a condition on it that no bound excludes yet: (P,) each."""
        open_ = self._open()
        open_[list(self.witnesses)] = False
        entries, conditions = np.nonzero(open_)
        return entries, conditions

    def _open(self) -> np.ndarray:
        excluded = (self.margins > 0) | (self._excluded_at_zero & (self.margins >= 0))
        open_ = np.logical_not(excluded)
        return open_ if self.problem.asked is None else open_ & self.problem.asked

    def grounds_of(self, entry: int) -> Grounds:
        """Those of one of several input sets, by condition."""
        count = len(self.problem.conditions)
        return {pair % count: how for pair, how in self.grounds.items() if pair // count == entry}

    def count_open(self) -> int:
        """How many conditions on all input sets no bound excludes yet."""
        return int(self._open().sum())

    def of_entry(self, entry: int) -> np.ndarray:
        """The lower bounds of the margins that one of several input sets is asked about."""
        margins: np.ndarray = self.margins[entry]
        return margins if self.problem.asked is None else margins[self.problem.asked[entry]]

    def asked_margins(self) -> np.ndarray:
        """Those of all of them, flat."""
        return self.margins.reshape(-1) if self.problem.asked is None else self.margins[self.problem.asked]

    def holds(self) -> np.ndarray:
        """Mask (entries,) of the input sets on which no condition is open."""
        return np.logical_not(self._open().any(axis=1))

    def decided(self) -> bool:
        """Whether every input set has a witness or no open condition."""
        return not len(self.open_pairs()[0])

    def keep(self, problem: Problem, some: np.ndarray) -> State:
        """What is known of some of several input sets, by index array, about which `problem` is.

        Raises ValueError where it is about others.
        """
        kept = State(problem)
        kept.margins = self.margins[some]
        if self.bounds is not None:
            kept._learn_bounds(self.bounds.select(some))
        if self.hinted is not None:
            count = self.margins.shape[1]
            entry, condition = np.divmod(self.hinted, count)
            place = np.full(len(self.margins), -1)
            place[some] = np.arange(len(some))
            there = place[entry] >= 0
            kept.hints, kept.hinted = self.hints[there], place[entry[there]] * count + condition[there]
        for new, old in enumerate(some.tolist()):
            kept.grounds.update(
                (new * self.margins.shape[1] + condition, how) for condition, how in self.grounds_of(old).items()
            )
        return kept

    def reduced(self, stop: Callable[[], bool]) -> Reduced:
        """The margin network reduced to what is unstable within `bounds`, made once for them.

        Earlier ones are kept that trees are under way on. Raises Stopped where `stop` returns true before it is done.
        """
        if not self._reductions or self._reductions[-1][0] is not self.proven:
            made = self.proven, reduce(self.proven, stop)
            under_way = (*(self.trees.searches if self.trees is not None else ()), *self.semidefinite)
            used = {search.bounder.root.scope.key for search in under_way}
            self._reductions = [*(pair for pair in self._reductions if pair[1].bounds.scope.key in used), made]
        return self._reductions[-1][1]

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
        if update.witness is not None:
            self.witnesses[update.entry] = update.witness
        if update.hints is not None:
            self.hints, self.hinted = update.hints, update.hinted
        for name in ("reason", "cut_gain", "trees", "semidefinite"):
            found = getattr(update, name)
            if found is not None:
                setattr(self, name, found)
        self.nodes, self.binaries = self.nodes + update.nodes, max(self.binaries, update.binaries)
        self.hidden_cut |= update.hidden_cut
        self.passes = max(self.passes, update.passes)
        self.programmed |= update.programmed

    def _learn_bounds(self, fact: Bounds) -> None:
        """Of all nodes: the first ones over the whole input set, later ones of the same scope."""
        lower, upper = self.problem.box
        wide = fact.lower[0].shape == lower.shape and bool(
            (fact.lower[0] <= lower).all() and (fact.upper[0] >= upper).all()
        )
        same = self.bounds is None or fact.scope.key == self.bounds.scope.key
        mine = fact.network is self.problem.margins and fact.batch == self.problem.entries
        if not (mine and wide and same and lies_in(self.problem.inputs, fact.inputs)) or fact.scope.assumptions:
            raise ValueError("the bounds are not about this problem's input set")
        self.bounds = fact
        if self.problem.together:
            proven = fact.lower[fact.network.output].reshape(self.margins.shape)
            proven = np.where(fact.finite()[:, None], proven, -np.inf)
            if fact.derivation is not None:
                fresh = (proven > 0) & self._open()
                for entry in np.flatnonzero(fresh.any(axis=1)).tolist():
                    shown = np.flatnonzero(fresh[entry])
                    how = Pre(fact.derivation, fact.network.output, shown, entry)
                    pairs = entry * len(self.problem.conditions) + shown
                    self.grounds.update((pair, (how, place)) for place, pair in enumerate(pairs.tolist()))
            self.margins = np.fmax(self.margins, proven)

    def _learn_rows(self, fact: RowBounds) -> None:
        """Of margins, over the whole input set or that of a reduced network."""
        for _, reduced in self._reductions:
            if fact.scope.key == reduced.bounds.scope.key:
                fact = reduced.lifted_rows(fact)
                break
        claim = fact.claim
        if claim is None or not self.proven.scope.has(fact.scope) or fact.scope.assumptions:
            raise ValueError("the fact is not about this problem's input set")
        if not (np.asarray(claim.factors) == 1).all():
            raise ValueError("the fact is about multiples of margins")
        if self.problem.together and self.problem.record:
            self._record_rows(fact, claim)
            return
        if self.problem.together:
            sides = lower_sides(fact)  # kept in the bounds, which outlive the input sets that are decided
            self.bounds = tighten(self.proven, [sides], further=False)
            self._learn_bounds(self.bounds)
            return
        if claim.node == self.problem.margins.output and claim.units.size == len(fact.lower):
            self._raise(claim.units.reshape(-1), fact.lower, fact.derivation)
            return
        for units, lower in zip(claim.units.reshape(len(fact.lower), -1).tolist(), fact.lower.tolist(), strict=True):
            condition = self.problem.condition_of.get((claim.node, tuple(sorted(units))))
            if condition is None:
                raise ValueError("the fact is about something else than a margin")
            self._raise(np.array([condition]), np.array([lower]), None)

    def _record_rows(self, fact: RowBounds, claim: Claim) -> None:
        """Of margins of several input sets, as far as it is known how."""
        if fact.derivation is None or claim.node != self.problem.margins.output or claim.units.ndim != 1:
            return
        entries = fact.entries()
        for place in np.flatnonzero((fact.lower > 0) & self._open()[entries, claim.units]).tolist():
            pair = int(entries[place]) * len(self.problem.conditions) + int(claim.units[place])
            self.grounds[pair] = fact.derivation, place
        self.margins[entries, claim.units] = np.fmax(self.margins[entries, claim.units], fact.lower)

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
