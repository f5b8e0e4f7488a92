"""From a network, its bounds and its conditions to a solver-neutral mixed-integer linear program."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mipverify.formulation.encode import Encoding, ReluColumns, encode
from mipverify.formulation.margin import condition_parts, margin_network
from mipverify.formulation.milp import Milp

if TYPE_CHECKING:
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

# Resolved on first use: no question needs what writes model files and PuLP models.
_HOMES = {
    "Program": "mipverify.formulation.program",
    "case_program": "mipverify.formulation.program",
    "network_program": "mipverify.formulation.program",
    "embed": "mipverify.formulation.pulp_model",
    "to_pulp": "mipverify.formulation.pulp_model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
