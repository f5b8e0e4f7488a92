"""Branch and bound on ReLU phases and on input boxes."""

from mipverify.solvers.branch_and_bound.hidden import Effort
from mipverify.solvers.branch_and_bound.progressive import progressive_tighten

__all__ = ["Effort", "progressive_tighten"]
