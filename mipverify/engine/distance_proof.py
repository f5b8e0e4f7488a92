"""The proof of a distance from below: what excludes each condition within some radius, put together in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mipverify.engine.problem import Problem
from mipverify.engine.recorded import ground_of
from mipverify.engine.state import Grounds
from mipverify.network import Network
from mipverify.proof.derivation import Derivation
from mipverify.specification import Case, Condition, Specification
from mipverify.specification.exact import domain_limits, exact_number
from mipverify.specification.normalization import Normalization
from mipverify.specification.statement import RobustnessStatement

if TYPE_CHECKING:
    from mipverify.proof_file import Proof


@dataclass(frozen=True, eq=False)
class _Excluded:
    """Within `radius`, which `problem` was about, by row `place` of a derivation."""

    radius: float
    problem: Problem
    how: Derivation
    place: int


@dataclass(eq=False)
class ExcludedWithin:
    """By condition, why it is excluded within the largest radius so far; conditions of one row.

    Sets of smaller radii lie within those of larger ones, so that the least of these radii is proven of all conditions.
    """

    _held: dict[int, _Excluded] = field(default_factory=dict)

    def take(self, radius: float, problem: Problem, excluded: Grounds) -> None:
        """What `problem` excludes at a radius, and why."""
        for condition, how in excluded.items():
            if condition not in self._held or radius > self._held[condition].radius:
                self._held[condition] = _Excluded(radius, problem, *how)

    def so_far(self) -> Mapping[int, _Excluded]:
        """By condition; does not change while a search goes on."""
        return dict(self._held)


def write_distance(
    network: Network,
    conditions: Sequence[Condition],
    held: Mapping[int, _Excluded],
    asked: RobustnessStatement | None,
) -> tuple[float, Proof | None, str]:
    """The least radius within which all conditions are excluded, its proof, and why there is none where it is lost.

    held: by condition, as `ExcludedWithin.so_far` has it; where one is missing the radius is 0, which needs no proof.
    asked: the robustness question that this answers, for any radius.
    """
    from mipverify.proof_file import UnprovableError, write_proof

    if len(held) < len(conditions):
        return 0.0, None, ""
    by_problem: dict[int, list[int]] = {}
    for condition, each in held.items():
        by_problem.setdefault(id(each.problem), []).append(condition)
    cases, grounds = [], []
    for own in by_problem.values():
        problem = held[own[0]].problem
        cases.append(Case(problem.inputs, tuple(conditions[c] for c in own)))
        grounds.append(ground_of(problem, {place: (held[c].how, held[c].place) for place, c in enumerate(own)}))
    radius = min(each.radius for each in held.values())
    asked = None if asked is None else replace(asked, eps=exact_number(radius, "eps"))
    try:
        return radius, write_proof(network, Specification(tuple(cases), "robustness", statement=asked), grounds), ""
    except UnprovableError as error:
        return 0.0, None, f"no proof can be written: {error}"


def robustness_asked(
    image: ArrayLike,
    conditions: Sequence[Condition],
    norm: str,
    domain: tuple[object, object] | None,
    normalization: Normalization | None,
) -> RobustnessStatement | None:
    """The question that a distance of `misclassified` answers for each radius; None where it is no such question.

    It is none where wrong classes must win by a margin, or the domain differs between features.
    """
    if any(row.offset for condition in conditions for row in condition.rows):
        return None
    if domain is not None and any(isinstance(side, (list, tuple, np.ndarray)) for side in domain):
        return None
    pairs = [sorted(row.outputs.items(), key=lambda term: term[1]) for c in conditions for row in c.rows]
    targets, label = tuple(low[0] for low, _ in pairs), pairs[0][1][0]
    pixels = np.asarray(image, np.float64).reshape(-1)
    return RobustnessStatement(pixels, label, targets, Fraction(0), norm, domain_limits(domain), normalization)
