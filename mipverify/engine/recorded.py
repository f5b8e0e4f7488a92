"""Proof files of what stages have concluded; only who asks for one imports what writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mipverify.engine.problem import Problem
from mipverify.engine.state import Grounds
from mipverify.engine.verdict import Verdict
from mipverify.errors import InputError
from mipverify.network import Network
from mipverify.specification import Condition, Specification

if TYPE_CHECKING:
    from mipverify.proof_file import Ground


def ground_of(problem: Problem, grounds: Grounds, entry: int = 0) -> Ground:
    """Why conditions on an input set are excluded, by their numbers in its case. entry: of several input sets."""
    from mipverify.proof_file import Ground

    lower, upper = (side[entry].reshape(-1) for side in problem.box)
    return Ground(problem.margins, lower, upper, grounds)


def with_proof(verdict: Verdict, network: Network, specification: Specification, grounds: Sequence[Ground]) -> Verdict:
    """A verdict of what holds with its proof; unknown where none can be written. grounds: one for each case."""
    from mipverify.proof_file import UnprovableError, write_proof

    try:
        return replace(verdict, proof=write_proof(network, specification, grounds))
    except UnprovableError as error:
        return replace(verdict, verdict="unknown", reason=f"no proof can be written: {error}")


def require_provable(network: Network, conditions: Sequence[Condition]) -> None:
    """Raise InputError where no proof about a network can be written, before any work."""
    from mipverify.proof_file import UnprovableError, require_provable

    try:
        require_provable(network, conditions)
    except UnprovableError as error:
        raise InputError(f"proof: {error}") from None
