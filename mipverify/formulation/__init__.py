"""From a network, its bounds and its conditions to a solver-neutral mixed-integer linear program."""

from mipverify.formulation.encode import Encoding, ReluColumns, encode
from mipverify.formulation.margin import condition_parts, margin_network
from mipverify.formulation.milp import Milp

__all__ = ["Encoding", "Milp", "ReluColumns", "condition_parts", "encode", "margin_network"]
