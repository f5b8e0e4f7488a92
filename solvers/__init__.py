"""Solvers of a Milp, one file a backend, and branch and bound on ReLU phases. Backends are imported on first use."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mipverify.solvers.highs import CertifiedProgram
    from mipverify.solvers.interface import Solver

    from mipverify.formulation import Milp

_BACKENDS = {
    "highs": ("mipverify.solvers.highs", "Highs"),
    "cbc": ("mipverify.solvers.cbc", "Cbc"),
    "scip": ("mipverify.solvers.scip", "Scip"),
}

__all__ = ["available_solvers", "certified_program", "get_solver"]


def get_solver(name: str) -> Solver:
    """The backend called `name`; raises InputError where it is unknown or cannot be used here, with the reason."""
    from mipverify.errors import InputError

    if name not in _BACKENDS:
        raise InputError(f"solver {name!r} is not one of {', '.join(_BACKENDS)}")
    module, kind = _BACKENDS[name]
    solver: Solver = getattr(import_module(module), kind)()
    available = solver.available()
    if not available:
        raise InputError(f"solver {name!r} cannot be used: {available.reason}")
    return solver


def available_solvers() -> list[str]:
    """Names of the backends that can be used here."""
    found = []
    for name, (module, kind) in _BACKENDS.items():
        if getattr(import_module(module), kind)().available():
            found.append(name)
    return found


def certified_program(milp: Milp, left: Callable[[], float] | None = None) -> CertifiedProgram:
    """A session of HiGHS on the linear relaxation of `milp` that gives bounds certified by their multipliers.

    left: how many seconds there are for each of them, if fewer than usual.
    """
    from mipverify.solvers.highs import CertifiedProgram

    return CertifiedProgram(milp, left=left)
