"""From what was concluded to a proof file: header, cases, and the facts that exclude each condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy

from mipverify.network import Network
from mipverify.network.model_file import ModelFile
from mipverify.network.parameters import ParameterMap
from mipverify.proof.derivation import Derivation
from mipverify.proof_file.facts import Facts
from mipverify.proof_file.file import FORMAT, VERSION, Arrays, Proof, UnprovableError
from mipverify.proof_file.sites import Sites
from mipverify.proof_file.world import world_of
from mipverify.specification import Case, Condition, Specification
from mipverify.specification.conditions import Row, representable
from mipverify.specification.exact import canonical
from mipverify.specification.sets import BallInBox, Box, Constrained, InputSet
from mipverify.specification.statement import RobustnessStatement


@dataclass(frozen=True, eq=False)
class Ground:
    """Why the conditions of one case are excluded.

    margins: the network whose outputs are their margins. lower, upper: float64 (n,), the box that was bounded, which
    contains that of the case. by: for each condition a derivation and which of its rows. entry: of the batch.
    """

    margins: Network
    lower: np.ndarray
    upper: np.ndarray
    by: Mapping[int, tuple[Derivation, int]] = field(repr=False)
    entry: int = 0


def write_proof(
    network: Network, specification: Specification, grounds: Sequence[Ground], about: Mapping[str, Any] | None = None
) -> Proof:
    """The proof that a property holds of a network. about: where its image came from (`data` in the header).

    grounds: one for each case. Raises UnprovableError where the format has no words for the network, for the question,
    or for a fact that is needed.
    """
    parameters: ParameterMap | None = network.parameters
    arrays, sites, facts, cases = Arrays(), Sites(), list[dict[str, Any]](), []
    for number, (case, ground) in enumerate(zip(specification.cases, grounds, strict=True)):
        require_provable(network, case.conditions)
        missing = set(range(len(case.conditions))).difference(ground.by)
        if missing:
            raise UnprovableError(f"condition {case.conditions[min(missing)].label!r} is excluded without a proof")
        cases.append(_case(case, ground, arrays))
        if parameters is not None:
            cases[-1]["map"] = _map(parameters, arrays)
        own = Facts(facts, arrays, sites, world_of(network, ground.margins), number)
        own.exclude(list(ground.by), list(ground.by.values()), ground.entry)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "arithmetic": network.arithmetic,
        "network": {"sha256": network.sha256},
        "question": _question(specification, arrays, about or {}) if parameters is None else {"kind": "sets"},
        "cases": cases,
        "sites": [list(name) for name in sites.names],
        "facts": facts,
    }
    return Proof(header, arrays.found)


def require_provable(network: Network, conditions: Sequence[Condition]) -> None:
    """Raise UnprovableError where a file has no words for a network, or for conditions on its outputs.

    Behind functions that keep the order of the outputs, nothing but that order is asked for.
    """
    parameters: ParameterMap | None = network.parameters
    file = network.file if parameters is None else parameters.original.file
    if type(file) is not ModelFile:  # a subclass is put together of several
        raise UnprovableError("the network is not that of one ONNX file, as it is")
    if parameters is not None and (parameters.original.parameters is not None or network.arithmetic != "real"):
        raise UnprovableError("a network of parameters of parameters, or one in float32, is not proven to files")
    for condition in conditions if network.dropped else ():
        for row in condition.rows:
            if row.inputs or row.offset or len(row.outputs) != 2 or sum(row.outputs.values()):
                raise UnprovableError(f"condition {condition.label!r} asks for more than the order of the outputs")


def _case(case: Case, ground: Ground, arrays: Arrays) -> dict[str, Any]:
    found: dict[str, Any] = {
        "box": arrays.packed(np.stack([ground.lower, ground.upper], axis=1)),
        # Scaled as the margins are that were bounded: multipliers and levels are in units of these.
        "conditions": [[_row(representable(row)) for row in condition.rows] for condition in case.conditions],
    }
    if not isinstance(case.inputs, Box):
        found["region"] = _region(case.inputs, arrays)
    return found


def _map(parameters: ParameterMap, arrays: Arrays) -> dict[str, Any]:
    """What makes the network's input of parameters."""

    def entries(matrix: Any) -> dict[str, str]:
        held = scipy.sparse.coo_array(matrix)
        held.sum_duplicates()
        held.eliminate_zeros()
        return {"rows": arrays.add(held.row), "columns": arrays.add(held.col), "values": arrays.add(held.data)}

    found = {"size": parameters.matrix.shape[1], "matrix": entries(parameters.matrix)}
    found["offset"] = arrays.add(np.asarray(parameters.offset, np.float64))
    if parameters.clip is not None:
        found["clip"] = arrays.add(np.array(parameters.clip, np.float64))
    return found if parameters.noise is None else {**found, "noise": entries(parameters.noise)}


def _row(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"outputs": [[i, canonical(c)] for i, c in row.outputs.items()]}
    if row.inputs:
        found["inputs"] = [[j, canonical(d)] for j, d in row.inputs.items()]
    found["offset"] = canonical(row.offset)
    return {**found, "strict": True} if row.strict else found


def _region(inputs: InputSet, arrays: Arrays) -> dict[str, Any]:
    """What cuts an input set out of its box."""
    if isinstance(inputs, Constrained) and isinstance(inputs.whole, Box | BallInBox):
        rows = {"matrix": arrays.add(inputs.matrix), "offset": arrays.add(inputs.offset)}
        return rows if isinstance(inputs.whole, Box) else {**_region(inputs.whole, arrays), **rows}
    if not isinstance(inputs, BallInBox):
        raise UnprovableError(f"inputs from a set that proof files cannot hold: {inputs}")
    ball = inputs.ball
    return {
        "norm": ball.norm.name,
        "center": arrays.packed(ball.center),
        "scale": arrays.packed(ball.scale),
        "radius": canonical(ball.radius),
    }


def _question(specification: Specification, arrays: Arrays, about: Mapping[str, Any]) -> dict[str, Any]:
    if specification.kind == "vnnlib" and specification.sha256 is not None:
        return {"kind": "vnnlib", "sha256": specification.sha256}
    asked = specification.statement
    return {"kind": "sets"} if asked is None else _robustness(asked, arrays, about)


def _robustness(asked: RobustnessStatement, arrays: Arrays, about: Mapping[str, Any]) -> dict[str, Any]:
    numbers: list[str] = []
    normalization = None
    if asked.normalization is not None:
        numbers = list(dict.fromkeys(canonical(v) for pair in asked.normalization.pairs for v in pair))
        pairs = [[numbers.index(canonical(v)) for v in pair] for pair in asked.normalization.pairs]
        normalization = arrays.packed(np.array(pairs)[asked.normalization.which])
    return {
        "kind": "robustness",
        "image": arrays.packed(asked.image),
        "label": asked.label,
        "targets": list(asked.targets),
        "eps": canonical(asked.eps),
        "norm": asked.norm,
        "domain": None if asked.domain is None else [canonical(limit) for limit in asked.domain],
        "normalization": normalization,
        "numbers": numbers,
        "data": dict(about),
    }
