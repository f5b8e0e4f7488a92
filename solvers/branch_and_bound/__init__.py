"""Branch and bound on ReLU phases and on input boxes."""

from mipverify.solvers.branch_and_bound.hidden import branch_tighten

__all__ = ["branch_tighten"]
