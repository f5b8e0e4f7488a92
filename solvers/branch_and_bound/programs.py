"""Linear programs of nodes: what no ascent finds in time, that the splits of a node contradict its bounds.

The triangle relaxation with the bounds of pre-activations as bounds of its columns (`presolve/linear.py`). Most nodes
that ascents leave open in deep networks are empty. Each program starts from the basis of the parent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from mipverify.presolve.linear import LayeredProgram, stacked
from mipverify.solvers.branch_and_bound.splits import Node

from mipverify.formulation.lp import LpSession
from mipverify.network import Network
from mipverify.proof.backward import Evidence, by_empty_program, row_minimum
from mipverify.proof.bounds import Bounds
from mipverify.proof.clipping import by_contradiction
from mipverify.proof.rows import Rows

SECONDS = 1.0  # for one program, which is not interrupted: nodes wait for nothing that takes longer
ENOUGH = 0.1  # of the distance to zero: how far above it a bound is asked for, where the node has no ceiling


class NodePrograms:
    """Programs of nodes of a layered network, for rows over its input and units, one a condition."""

    def __init__(self, programs: LayeredProgram, rows: Rows, open_session: Callable[[], LpSession]):
        self.programs, self.rows, self.open_session = programs, rows, open_session
        self._session: LpSession | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_session": None}

    @staticmethod
    def of(network: Network, rows: Rows, open_session: Callable[[], LpSession]) -> NodePrograms | None:
        """None where `LayeredProgram` has none."""
        programs = LayeredProgram.of(network, rows)
        return None if programs is None else NodePrograms(programs, rows, open_session)

    def raise_bounds(
        self, nodes: Sequence[Node], bounds: Bounds, points: np.ndarray, stop: Callable[[], bool]
    ) -> list[Node]:
        """Nodes with the bounds of their programs; points (K, *input_shape) become the minimizers where there are any.

        bounds: of the nodes, by batch.
        """
        if self._session is None:
            self._session = self.open_session()
        raised, programs = list(nodes), self.programs
        if not all(bool(np.isfinite(side).all()) for side in (*bounds.lower, *bounds.upper)):
            return raised  # nothing to make a program of
        crossed, found = [], (_Found(), _Found())
        for k, (node, sides) in enumerate(zip(nodes, programs.sides(bounds, len(nodes)), strict=True)):
            if stop():
                break
            if sides is None:  # bounds exclude each other
                crossed.append(k)
                continue
            milp = programs.program(node.condition, 1.0, sides)
            cutoff = node.ceiling if np.isfinite(node.ceiling) else ENOUGH * abs(node.lower)
            self._session.open(milp, node.basis)
            answer, excess = self._session.solve(SECONDS, cutoff), None
            if answer.point is not None:
                n, units = programs.layered.inputs.shape[1], programs.layered.begin[-1]
                x, z, y = np.split(answer.point, [n, n + units])
                # A solver has its tolerances.
                points[k] = np.clip(x, sides.low, sides.high).reshape(points.shape[1:])
                excess = programs.by_layer((y - np.maximum(z, 0.0)).astype(np.float32))
            raised[k] = replace(node, basis=self._session.basis(), excess=excess)
            if answer.multipliers is not None:
                found[answer.empty].add(k, *programs.evidence(milp, answer.multipliers, answer.empty))
        if crossed:
            conditions = np.array([nodes[k].condition for k in crossed])
            inner, claim = bounds.select(np.array(crossed)), self.rows.take(conditions).claim
            assert claim is not None  # rows of units
            fact = by_contradiction(inner, claim)
            for place, k in enumerate(crossed):
                raised[k] = raised[k].learned(fact, place)
        for empty, some in enumerate(found):
            self._conclude(raised, bounds, some, bool(empty))
        return raised

    def _conclude(self, nodes: list[Node], bounds: Bounds, some: _Found, empty: bool) -> None:
        """What the multipliers of some nodes' programs prove of them, in place: a bound, or that they are empty."""
        if not some.nodes:
            return
        rows = self.rows.take(np.array([nodes[k].condition for k in some.nodes]))
        evidence = Evidence(stacked(some.slopes), stacked(some.multipliers))
        own = [nodes[k] for k in some.nodes], bounds.select(np.array(some.nodes))
        for k, node in zip(some.nodes, concluded(*own, rows, evidence, empty), strict=True):
            nodes[k] = node


@dataclass(frozen=True)
class _Found:
    """Nodes, by position, and what multipliers of their programs say of each."""

    nodes: list[int] = field(default_factory=list)
    slopes: list[dict[int, np.ndarray]] = field(default_factory=list)
    multipliers: list[dict[int, np.ndarray]] = field(default_factory=list)

    def add(self, node: int, slopes: dict[int, np.ndarray], multipliers: dict[int, np.ndarray]) -> None:
        """One more."""
        self.nodes.append(node)
        self.slopes.append(slopes)
        self.multipliers.append(multipliers)


def concluded(nodes: Sequence[Node], bounds: Bounds, rows: Rows, evidence: Evidence, empty: bool) -> list[Node]:
    """Nodes, one for each entry and row, with what multipliers of their programs prove: a bound, or emptiness."""
    fact = (by_empty_program if empty else row_minimum)(bounds, rows, evidence)
    return [node.learned(fact, place) for place, node in enumerate(nodes)]
