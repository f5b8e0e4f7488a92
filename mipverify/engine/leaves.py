"""Leaves of the search tree, in which no unit is left to split: linear programs, whose multipliers prove bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mipverify.engine.stage import Work
from mipverify.formulation.input_rows import confined
from mipverify.presolve.linear import LayeredProgram, stacked
from mipverify.proof.backward import Evidence
from mipverify.proof.bounds import Bounds, assume
from mipverify.proof.clipping import by_contradiction
from mipverify.proof.rows import Rows, unit_rows

if TYPE_CHECKING:
    from mipverify.solvers.branch_and_bound.splits import Node

ROUNDS = 30  # of tangents to a curved ball, of which each brings the minimizer nearer to it
SECONDS = 20.0  # for one program: a leaf has no other way left


def leaf_solver(work: Work, bounds: Bounds) -> Callable[[Node], Node]:
    """Raises the bound of a node without units to split, within bounds of the reduced network.

    The dual ascent that bounds nodes creeps where an input set has corners; a leaf's program is small and exact. Its
    minimizers are tried as counterexamples.
    """
    return _Leaves(work, bounds)


@dataclass(frozen=True, eq=False)
class _Leaves:
    work: Work
    bounds: Bounds

    @cached_property
    def rows(self) -> Rows:
        """Of all conditions."""
        network = self.bounds.network
        return unit_rows(network, network.output, np.arange(network.output_size), None, self.bounds.like)

    @cached_property
    def programs(self) -> LayeredProgram | None:
        """None where the network has no such program. Most searches end before they have any leaf."""
        return LayeredProgram.of(self.bounds.network, self.rows)

    def __call__(self, node: Node) -> Node:
        from mipverify.solvers import lp_session

        work, programs = self.work, self.programs
        if programs is None:
            return node
        inner = assume(self.bounds, [node.assumption], [node.entry])
        (sides,) = programs.sides(inner, 1)
        row = self.rows.take(np.array([node.condition]))
        if sides is None and row.claim is not None:  # bounds exclude each other
            return node.learned(by_contradiction(inner, row.claim), 0)
        if sides is None or not inner.finite().all():
            return node
        milp, columns = programs.program(node.condition, 1.0, sides), np.arange(len(sides.low))
        whole, curved = confined(milp, columns, inner.inputs)
        session = lp_session(work.deadline.left)
        session.open(whole)
        for _ in range(ROUNDS):
            answer = session.solve(SECONDS)
            if answer.multipliers is not None:
                evidence = programs.evidence(milp, answer.multipliers[: milp.rows], answer.empty)
                node = self._learned(node, inner, *evidence, answer.empty)
            if node.lower > 0 or answer.point is None or work.deadline.over():
                break
            if work.try_points(answer.point[columns][None]):
                break
            tangents = None if curved is None else curved.tangents(answer.point)
            if tangents is None:
                break
            session.add_rows(tangents[0], tangents[1], np.full(len(tangents[1]), np.inf))
        return node

    def _learned(
        self,
        node: Node,
        inner: Bounds,
        slopes: dict[int, np.ndarray],
        multipliers: dict[int, np.ndarray],
        empty: bool,
    ) -> Node:
        from mipverify.solvers.branch_and_bound.programs import concluded

        evidence = Evidence(stacked([slopes]), stacked([multipliers]))
        return concluded([node], inner, self.rows.take(np.array([node.condition])), evidence, empty)[0]
