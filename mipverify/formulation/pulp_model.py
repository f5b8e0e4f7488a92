"""Networks as constraints of PuLP models: a model of their own, or part of a user's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mipverify.errors import InputError
from mipverify.formulation.program import Row, network_program, one_sided
from mipverify.network import loaded
from mipverify.network.snapshot import snapshot
from mipverify.network.validation import points_of, validated
from mipverify.specification.sets import Box, InputSet

if TYPE_CHECKING:
    from pathlib import Path

    import pulp

    from mipverify.formulation.milp import Milp
    from mipverify.network import Network


def to_pulp(network: Network | str | Path, input_set: InputSet) -> pulp.LpProblem:
    """A PuLP model of a network, or of an ONNX file, over an input set, without an objective.

    Its variables `input_0`, … and `output_0`, … are those of the network, flattened; the others and the constraints
    are named by layer and unit, as in `mipverify.formulation.labels`. Raises InputError as `embed` does.
    """
    import pulp

    if not isinstance(input_set, InputSet):
        raise InputError(f"an input set is needed, such as the box of a case, not {type(input_set).__name__}")
    problem = pulp.LpProblem("network", pulp.LpMinimize)
    _place(problem, loaded(network), input_set, None, "")
    return problem


def embed(
    problem: pulp.LpProblem,
    network: Network | str | Path,
    inputs: Sequence[pulp.LpVariable],
    *,
    name: str = "network",
) -> list[pulp.LpVariable]:
    """Put a trained network into a PuLP model as constraints; returns the variables of its outputs, flattened.

    network: one, or the path of an ONNX file. inputs: a variable with finite bounds for each input, flattened.
    Big-M values and bounds are proven over the box of these by interval arithmetic and CROWN; only ReLUs that stay
    unstable there get a binary. name: begins the names of all that is added; networks in one model need different ones.

    Raises InputError where inputs do not fit the network or have no bounds, where a name is taken, where the network
    was read otherwise than ONNX Runtime runs it, and where it ends in a softmax, a sigmoid or a choice of a class.
    """
    inputs, network = list(inputs), loaded(network)
    if len(inputs) != network.input_size:
        raise InputError(f"embed: the network has {network.input_size} inputs, not {len(inputs)}")
    for k, variable in enumerate(inputs):
        sides = getattr(variable, "lowBound", None), getattr(variable, "upBound", None)
        if any(side is None or not math.isfinite(side) for side in sides):
            raise InputError(f"embed: input {k} ({variable}) must be a variable with finite lower and upper bounds")
    if len({id(variable) for variable in inputs}) < len(inputs):
        raise InputError("embed: a variable is given for two inputs; make another one that equals it")
    box = Box.from_floats([v.lowBound for v in inputs], [v.upBound for v in inputs])
    return _place(problem, network, box, inputs, f"{name}_")


def _place(
    problem: pulp.LpProblem,
    network: Network,
    input_set: InputSet,
    inputs: list[pulp.LpVariable] | None,
    prefix: str,
) -> list[pulp.LpVariable]:
    """Add variables and constraints of a network; inputs: variables that there are already."""
    network = snapshot(network)
    if network.dropped:
        raise InputError(
            f"{network.path or 'the network'}: {'; '.join(network.notes)}: only scores are piecewise linear"
        )
    if input_set.size != network.input_size:
        raise InputError(f"the input set has {input_set.size} inputs, the network {network.input_size}")
    validated(network, points_of([(input_set.box.float32_lower, input_set.box.float32_upper)]))
    program = network_program(network, input_set)
    columns, rows = ([prefix + own for own in made] for made in (program.columns, program.rows))
    given = {} if inputs is None else dict(zip(program.inputs.tolist(), inputs, strict=True))
    variables = pulp_variables(program.milp, columns, given)
    new = {variables[k].name for k in range(len(variables)) if k not in given}
    taken = new & {variable.name for variable in (*problem.variables(), *given.values())}
    taken |= set(rows) & set(problem.constraints)
    if taken:
        raise InputError(f"embed: the model has the name {min(taken)!r} already: choose another name=")
    problem.addVariables(variables)  # in this order, and those that no constraint has, too
    add_rows(problem, one_sided(program.milp, rows), variables)
    return [variables[k] for k in program.outputs]


def pulp_variables(
    milp: Milp, names: Sequence[str], given: dict[int, pulp.LpVariable] | None = None
) -> list[pulp.LpVariable]:
    """Variables for the columns of a program; given: those that there are already, by column."""
    import pulp

    made = dict(given or {})
    for j, name in enumerate(names):
        if j not in made:
            low, high = (float(side[j]) for side in (milp.lower, milp.upper))
            sides = (None if math.isinf(side) else side for side in (low, high))
            made[j] = pulp.LpVariable(name, *sides, pulp.LpInteger if milp.integer[j] else pulp.LpContinuous)
    return [made[j] for j in range(len(names))]


def add_rows(problem: pulp.LpProblem, rows: Iterable[Row], variables: Sequence[pulp.LpVariable]) -> None:
    """Add rows over variables (n,) to a model."""
    import pulp

    senses = {"=": pulp.LpConstraintEQ, ">=": pulp.LpConstraintGE, "<=": pulp.LpConstraintLE}
    for row in rows:
        entries: list[Any] = [(variables[j], float(v)) for j, v in zip(row.columns, row.values, strict=True)]
        expression = pulp.LpAffineExpression(entries)
        problem.addConstraint(pulp.LpConstraint(expression, senses[row.sense], name=row.name, rhs=row.limit))
