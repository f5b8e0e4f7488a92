"""The program of a question or of a network, for solvers and models outside of this package."""

from __future__ import annotations

from mipverify.engine.scores import score_case
from mipverify.errors import InputError
from mipverify.formulation.model_file import FORMATS
from mipverify.formulation.program import Program, case_program, network_program
from mipverify.network import Network
from mipverify.network.snapshot import snapshot
from mipverify.network.validation import points_of, validated
from mipverify.specification import Specification
from mipverify.specification.sets import InputSet

__all__ = ["Program", "plain_program", "question_program", "written"]


def question_program(network: Network, specification: Specification) -> Program:
    """The program whose minimum is positive exactly where the property holds, for the network's real-valued function.

    Raises InputError where network and property do not fit, and where no single mixed-integer linear program says it.
    """
    network, where = snapshot(network), specification.path or "the property"
    specification.require_network(network)
    if len(specification.cases) != 1:
        raise InputError(f"{where}: has {len(specification.cases)} input sets, and a model has one: state one of them")
    if specification.assumed is not None:
        raise InputError(f"{where}: inputs have no bounds, and a model needs them")
    (case,) = specification.cases
    _check(network, case.inputs)
    return case_program(network, score_case(network, case))


def plain_program(network: Network, inputs: InputSet) -> Program:
    """The program of a network over an input set, its own output unchanged, without an objective."""
    network = snapshot(network)
    _check(network, inputs)
    return network_program(network, inputs)


def written(program: Program, suffix: str) -> str:
    """The text of a model file whose name ends with .mps or .lp."""
    return FORMATS[suffix](program)


def _check(network: Network, inputs: InputSet) -> None:
    """Compare the network with its original in the set."""
    validated(network, points_of([(inputs.box.float32_lower, inputs.box.float32_upper)]))
