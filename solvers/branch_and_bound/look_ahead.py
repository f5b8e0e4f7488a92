"""The bounder of splits by constraint propagation: phases that contradict each other, and which to split next.

Networks that encode combinatorial problems have relaxations with a minimum of zero until phases contradict each other:
no bound tells where to split. Propagation finds contradictions early, and tried for both phases of each candidate it
says which split fixes most [look-ahead solvers, Heule and van Maaren 2009; probing of MILPs]. It proves nothing: what
it calls empty gets a linear program, of whose multipliers the kernel makes the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from mipverify.presolve.propagation import Domains, Propagation
from mipverify.solvers.branch_and_bound.programs import NodePrograms
from mipverify.solvers.branch_and_bound.splits import Node

from mipverify.proof.bounds import Bounds, assume
from mipverify.proof.facts import EVERYWHERE

CANDIDATES = 8  # units of which both phases are tried
BOTH = 1024.0  # what splits count of which both phases fix something, beside those of which only one does
EMPTY = 1e4  # what a phase counts that leaves nothing
FIXED = 0.01  # what a unit counts that gets a sign


@dataclass(frozen=True, eq=False, kw_only=True)
class DomainNode(Node):
    """A node with what propagation leaves of it, or None before that."""

    domains: Domains | None = None

    @property
    def bytes(self) -> int:
        """Size of its arrays."""
        own = self.domains
        return 0 if own is None else own.low.nbytes + own.high.nbytes + own.lower.nbytes + own.upper.nbytes


class LookAheadBounder:
    """Bounds subproblems of one condition of a layered network under fixed phases.

    root: bounds of the whole input set (batch 1). propagation: of the condition's rows, over the same units.
    programs: of nodes.
    """

    def __init__(self, root: Bounds, propagation: Propagation, programs: NodePrograms):
        self.root, self.propagation, self.programs = root, propagation, programs
        assert programs.rows.claim is not None  # made of units
        self.claim = programs.rows.claim
        self._basis: np.ndarray | None = None  # of the last program: most are alike

    def start(self, condition: int) -> DomainNode:
        """The whole problem."""
        return DomainNode(condition, EVERYWHERE, float("-inf"), {}, {})

    def raise_bounds(
        self, nodes: Sequence[DomainNode], stop: Callable[[], bool] | None = None
    ) -> tuple[list[DomainNode], np.ndarray]:
        """Nodes with the bounds of their programs where nothing is left of them, and the middles of what is."""
        solved = [node if node.domains is not None else replace(node, domains=self._whole()) for node in nodes]
        domains = Domains.join([node.domains for node in solved if node.domains is not None])
        points = (0.5 * (domains.low + domains.high)).reshape(len(nodes), *self.root.lower[0].shape[1:])
        empty = [k for k, node in enumerate(solved) if domains.empty[k] or not node.splits]
        if empty:
            own = [replace(solved[k], basis=self._basis) for k in empty]
            bounds = assume(self.root, [node.assumption for node in own], [None] * len(own))
            raised = self.programs.raise_bounds(own, bounds, points[empty], stop or (lambda: False))
            self._basis = raised[-1].basis
            for k, node in zip(empty, raised, strict=True):
                assert isinstance(node, DomainNode)
                solved[k] = replace(node, basis=None, excess=None)
        return solved, points

    def split(
        self, nodes: Sequence[DomainNode], stop: Callable[[], bool] | None = None
    ) -> list[tuple[DomainNode, DomainNode] | None]:
        """The two children of each node, not bounded yet; None where nothing is left to split."""
        return [self._split(node) for node in nodes]

    def _whole(self) -> Domains:
        network, layered = self.root.network, self.propagation.layered
        own = [network.relu_source(relu) for relu in layered.relus]
        sides = self.root.lower, self.root.upper
        low, high = (side[0].reshape(-1) for side in sides)
        lower, upper = (np.concatenate([side[node].reshape(-1) for node in own]) for side in sides)
        found = self.propagation.start(low, high, lower, upper)
        self.propagation.tighten(found)
        return found

    def _split(self, node: DomainNode) -> tuple[DomainNode, DomainNode] | None:
        domains, propagation = node.domains, self.propagation
        if domains is None or domains.empty[0]:
            return None
        taken = np.zeros(len(propagation.step), bool)
        for relu, unit, _ in node.splits:
            taken[propagation.layered.begin[propagation.layered.relus.index(relu)] + unit] = True
        met, _, _ = propagation.passed(domains)
        free = domains.unstable()[0] & ~taken
        concave = free & (met[0] < 0).any(axis=0)
        units = np.flatnonzero(concave if concave.any() else free)
        if not len(units):
            return None
        if len(units) > CANDIDATES:
            pull = propagation.tension(domains)[0] @ propagation.reads  # of constraints on each input
            units = units[np.argsort(-(propagation.reads[units] @ pull), kind="stable")[:CANDIDATES]]
        count = len(units)
        tried = domains.take(np.zeros(2 * count, int))
        tried.lower[np.arange(count), units] = 0.0
        tried.upper[np.arange(count, 2 * count), units] = 0.0
        propagation.tighten(tried)
        fixed = domains.unstable().sum() - tried.unstable().sum(axis=1)
        gain = np.where(tried.empty, EMPTY, propagation.tension(tried).sum(axis=1) + FIXED * fixed)
        active, inactive = gain[:count], gain[count:]
        best = int(np.argmax(BOTH * active * inactive + active + inactive))
        layer = int(np.searchsorted(propagation.layered.begin, units[best], side="right")) - 1
        split = propagation.layered.relus[layer], int(units[best]) - propagation.layered.begin[layer]
        first, second = (
            replace(
                node,
                assumption=replace(node.assumption, splits=(*node.splits, (*split, sign))),
                domains=tried.take(np.array([place])),
                fact=None,
            )
            for sign, place in ((1, best), (-1, count + best))
        )
        return first, second
