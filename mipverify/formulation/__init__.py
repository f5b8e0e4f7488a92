"""From a network, its bounds and its conditions to a solver-neutral mixed-integer linear program."""

from mipverify.formulation.encode import Encoding, ReluColumns, encode
from mipverify.formulation.margin import condition_parts, margin_network
from mipverify.formulation.milp import Milp
from mipverify.formulation.program import Program, case_program, network_program
from mipverify.formulation.pulp_model import embed, to_pulp

__all__ = [
    "Encoding",
    "Milp",
    "Program",
    "ReluColumns",
    "case_program",
    "condition_parts",
    "embed",
    "encode",
    "margin_network",
    "network_program",
    "to_pulp",
]
