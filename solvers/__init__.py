"""Solvers of a Milp, one file a backend, and branch and bound on ReLU phases. Backends are imported on first use."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mipverify.solvers.interface import Solver

    from mipverify.formulation.lp import LpSession

_BACKENDS = {
    "highs": ("mipverify.solvers.highs", "Highs"),
    "cbc": ("mipverify.solvers.cbc", "Cbc"),
    "scip": ("mipverify.solvers.scip", "Scip"),
}

__all__ = ["available_solvers", "get_solver", "lp_session"]


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


def lp_session(left: Callable[[], float] | None = None) -> LpSession:
    """A session of HiGHS for linear programs of one shape; what its multipliers prove is for the kernel to say.

    left: how many seconds there are for each of them, if fewer than asked for.
    """
    from mipverify.solvers.highs import HighsSession

    return HighsSession(left)


def __getattr__(name: str) -> object:
    if name == "branch_and_bound":  # loaded on first use
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
