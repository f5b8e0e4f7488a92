"""From clauses to cases: bounds on single inputs become boxes, everything else conditions on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from mipverify.errors import InputError
from mipverify.specification.conditions import Condition, Row
from mipverify.specification.exact import Exact
from mipverify.specification.normal_form import Atom, Bound, Dnf, conjunction
from mipverify.specification.sets import Box, EmptyBoxError
from mipverify.specification.specification import Case

MOST_ASSUMED = 1_000_000  # inputs, of which some have no bounds


class UnboundedInputError(InputError):
    """Inputs have no bounds; with bounds assumed for them the property can be read."""


@dataclass(frozen=True)
class Variables:
    """How many inputs and outputs there are, and how the file calls the inputs.

    inputs_alone: whether a property may say nothing of outputs, and is then violated by every input that meets it.
    assumed: a magnitude that stands in for bounds that inputs do not have; None refuses such properties.
    """

    num_inputs: int
    num_outputs: int
    input_name: Callable[[int], str]
    inputs_alone: bool = False
    assumed: float | None = None


def build_cases(asserted: Sequence[Dnf], variables: Variables) -> tuple[Case, ...]:
    """The cases of a property that an input violates when it meets all of `asserted`, which are used up.

    Clauses with equal boxes share one Case; clauses that contradict themselves are left out.

    Raises:
        InputError: an input lacks a bound, no input is left, no output is mentioned, or the normal form is too large.
    """
    shared = conjunction(part for part in asserted if len(part) <= 1)
    if not shared:
        raise EmptyBoxError("empty property: an assertion contradicts itself, so no input could violate it")
    clauses = conjunction(part for part in asserted if len(part) > 1)
    common = _Parts.of(shared[0])
    groups: dict[object, list[_Parts]] = {}
    mentions_output = common.mentions_output()
    for clause in clauses:
        parts = _Parts.of(clause)
        mentions_output = mentions_output or parts.mentions_output()
        groups.setdefault(parts.inputs.key(), []).append(parts)
    boxes = _boxes(common.inputs, [alike[0].inputs for alike in groups.values()], variables)
    if not (mentions_output or variables.inputs_alone):
        raise InputError("the property constrains no output")
    rows: list[list[Row]] = []
    found: dict[bytes, tuple[Box, list[int]]] = {}
    for box, alike in zip(boxes, groups.values(), strict=True):
        if isinstance(box, Box):
            numbers = found.setdefault(box.key(), (box, []))[1]
            for parts in alike:
                numbers.append(len(rows))
                rows.append(common.rows + common.outputs.merged(parts.outputs).as_rows() + parts.rows)
    if not found:
        first = next(box for box in boxes if isinstance(box, EmptyBoxError))
        raise EmptyBoxError(str(first) if len(boxes) == 1 else f"{first} (and so for every other alternative)")
    conditions = Condition.many(rows, variables.num_inputs, variables.num_outputs)
    return tuple(Case(box, tuple(conditions[k] for k in numbers)) for box, numbers in found.values())


_Side: TypeAlias = dict[int, tuple[Exact, bool]]


@dataclass(frozen=True)
class _Bounds:
    """The tightest of some bounds: (value, is open) by variable."""

    lower: _Side
    upper: _Side

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
        if not (self.lower or self.upper):
            return other
        both = _Bounds(dict(self.lower), dict(self.upper))
        for is_upper, side in ((False, other.lower), (True, other.upper)):
            for variable, (value, is_open) in side.items():
                both.tighten(variable, is_upper, value, is_open)
        return both

    def key(self) -> object:
        """Equal for equal bounds."""
        return (frozenset(self.lower.items()), frozenset(self.upper.items()))

    def as_rows(self) -> list[Row]:
        """Bounds on outputs as rows `Y_j <= value` and `-Y_j <= -value`."""
        return [Row({-1 - v: _ONE}, {}, Fraction(b), is_open) for v, (b, is_open) in self.upper.items()] + [
            Row({-1 - v: -_ONE}, {}, -Fraction(b), is_open) for v, (b, is_open) in self.lower.items()
        ]


_ONE = Fraction(1)


@dataclass(frozen=True)
class _Parts:
    """A conjunction: bounds on single inputs and on single outputs, and everything else."""

    inputs: _Bounds
    outputs: _Bounds
    rows: list[Row]

    @classmethod
    def of(cls, atoms: Iterable[Atom]) -> _Parts:
        parts = cls(_Bounds({}, {}), _Bounds({}, {}), [])
        for atom in atoms:
            if isinstance(atom, Bound):
                (parts.inputs if atom.variable >= 0 else parts.outputs).tighten(*atom)
            else:
                parts.rows.append(atom)
        return parts

    def mentions_output(self) -> bool:
        return bool(self.outputs.lower or self.outputs.upper) or any(row.outputs for row in self.rows)


def _boxes(common: _Bounds, own: Sequence[_Bounds], variables: Variables) -> list[Box | EmptyBoxError]:
    """The boxes of alternatives: all of `common`, and the bounds of each."""
    count = variables.num_inputs
    sides: dict[bool, list[tuple[Exact, bool]]] = {False: [], True: []}
    for bounds in map(common.merged, own):
        for is_upper, side in ((False, bounds.lower), (True, bounds.upper)):
            if len(side) < count and variables.assumed is not None and count <= MOST_ASSUMED:
                other = bounds.lower if is_upper else bounds.upper
                side = {i: side.get(i) or _assumed(other.get(i), variables.assumed, is_upper) for i in range(count)}
            if len(side) < count:
                first = next(i for i in range(count) if i not in side)
                others = f" (nor have {count - len(side) - 1} other inputs)" if count - len(side) > 1 else ""
                word = "upper" if is_upper else "lower"
                kind = UnboundedInputError if count <= MOST_ASSUMED else InputError
                raise kind(f"input {variables.input_name(first)} has no {word} bound{others}")
            sides[is_upper].extend(side[i] for i in range(count))
    lower, upper = sides[False], sides[True]
    return Box.many(
        [value for value, _ in lower],
        [value for value, _ in upper],
        count,
        lower_open=np.array([is_open for _, is_open in lower], bool),
        upper_open=np.array([is_open for _, is_open in upper], bool),
        name=variables.input_name,
    )


def _assumed(other: tuple[Exact, bool] | None, magnitude: float, is_upper: bool) -> tuple[Exact, bool]:
    """A bound in place of one that is not there, away from the one on the other side."""
    sign = 1 if is_upper else -1
    near = Fraction(0) if other is None else max(Fraction(0), sign * Fraction(other[0]))
    return sign * (near + Fraction(magnitude)), False
