"""Branch and bound on ReLU phases and on input boxes."""

from mipverify.solvers.branch_and_bound.progressive import progressive_tighten
from mipverify.solvers.branch_and_bound.stabilization import Effort

__all__ = ["Effort", "progressive_tighten"]
