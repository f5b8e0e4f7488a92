"""From clauses to cases: bounds on single inputs become boxes, everything else conditions on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from mipverify.errors import InputError
from mipverify.specification.conditions import Condition, Row
from mipverify.specification.exact import Exact
from mipverify.specification.normal_form import Atom, Bound, Dnf, conjunction
from mipverify.specification.sets import Box, EmptyBoxError
from mipverify.specification.specification import Case


@dataclass(frozen=True)
class Variables:
    """How many inputs and outputs there are, and how the file calls the inputs."""

    num_inputs: int
    num_outputs: int
    input_name: Callable[[int], str]


def build_cases(asserted: Sequence[Dnf], variables: Variables) -> tuple[Case, ...]:
    """The cases of a property that an input violates when it meets all of `asserted`.

    Clauses with equal boxes share one Case; clauses that contradict themselves are left out.

    Raises:
        InputError: an input lacks a bound, no input is left, no output is mentioned, or the normal form is too large.
    """
    shared = conjunction(part for part in asserted if len(part) <= 1)
    if not shared:
        raise InputError("empty property: an assertion contradicts itself, so no input could violate it")
    clauses = conjunction(part for part in asserted if len(part) > 1)
    base, base_rows = _split(shared[0])
    common = _Bounds.of(base)
    boxes: dict[object, Box | EmptyBoxError] = {}
    found: dict[bytes, tuple[Box, list[Condition]]] = {}
    mentions_output = False
    for clause in clauses:
        bounds, rows = _split(clause)
        mine = _Bounds.of(bounds)
        key = mine.key()
        if key not in boxes:
            boxes[key] = _box(common.merged(mine), variables)
        box = boxes[key]
        rows = base_rows + rows
        mentions_output = mentions_output or any(row.outputs for row in rows)
        if isinstance(box, Box):
            condition = Condition.from_rows(rows, variables.num_inputs, variables.num_outputs)
            found.setdefault(box.key(), (box, []))[1].append(condition)
    if not mentions_output:
        raise InputError("the property constrains no output")
    if not found:
        first = next(box for box in boxes.values() if isinstance(box, EmptyBoxError))
        raise EmptyBoxError(str(first) if len(boxes) == 1 else f"{first} (and so for every other alternative)")
    return tuple(Case(box, tuple(conditions)) for box, conditions in found.values())


def _split(atoms: Iterable[Atom]) -> tuple[list[Bound], list[Row]]:
    bounds: list[Bound] = []
    rows: list[Row] = []
    for atom in atoms:
        if isinstance(atom, Bound):
            bounds.append(atom)
        else:
            rows.append(atom)
    return bounds, rows


_Side: TypeAlias = dict[int, tuple[Exact, bool]]


@dataclass(frozen=True)
class _Bounds:
    """The tightest of some bounds: (value, is open) by variable."""

    lower: _Side
    upper: _Side

    @classmethod
    def of(cls, atoms: Iterable[Bound]) -> _Bounds:
        bounds = cls({}, {})
        for atom in atoms:
            bounds.tighten(*atom)
        return bounds

    def tighten(self, variable: int, is_upper: bool, value: Exact, is_open: bool) -> None:
        side = self.upper if is_upper else self.lower
        known = side.get(variable)
        if known is not None:
            if known[0] == value:
                is_open = is_open or known[1]
            elif (known[0] < value) == is_upper:
                return
        side[variable] = (value, is_open)

    def merged(self, other: _Bounds) -> _Bounds:
        both = _Bounds(dict(self.lower), dict(self.upper))
        for is_upper, side in ((False, other.lower), (True, other.upper)):
            for variable, (value, is_open) in side.items():
                both.tighten(variable, is_upper, value, is_open)
        return both

    def key(self) -> object:
        """Equal for equal bounds."""
        return (frozenset(self.lower.items()), frozenset(self.upper.items()))


def _box(bounds: _Bounds, variables: Variables) -> Box | EmptyBoxError:
    indices = range(variables.num_inputs)
    for word, side in (("lower", bounds.lower), ("upper", bounds.upper)):
        missing = [variables.input_name(i) for i in indices if i not in side]
        if missing:
            others = f" (nor have {len(missing) - 1} other inputs)" if len(missing) > 1 else ""
            raise InputError(f"input {missing[0]} has no {word} bound{others}")
    try:
        return Box.from_exact(
            [bounds.lower[i][0] for i in indices],
            [bounds.upper[i][0] for i in indices],
            lower_open=np.array([bounds.lower[i][1] for i in indices], bool),
            upper_open=np.array([bounds.upper[i][1] for i in indices], bool),
            name=variables.input_name,
        )
    except EmptyBoxError as error:
        return error
