"""Solvers of a Milp, one file a backend, and branch and bound. Backends are imported on first use."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from mipverify.solvers.registry import available_solvers, get_solver, solver_with

if TYPE_CHECKING:
    from mipverify.formulation.lp import LpSession

__all__ = ["available_solvers", "get_solver", "lp_session", "solver_with"]


def lp_session(left: Callable[[], float] | None = None) -> LpSession:
    """A session of linear programs; what its multipliers prove is for the kernel to say.

    left: how many seconds there are for each of them, if fewer than asked for.
    """
    from mipverify.solvers.interface import Feature

    return solver_with(Feature.LP_DUALS, Feature.WARM_BASES).session(left)


def __getattr__(name: str) -> object:
    if name == "branch_and_bound":  # loaded on first use
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
