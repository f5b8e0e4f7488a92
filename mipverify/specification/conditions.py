"""Conditions on outputs: conjunctions of linear inequalities whose satisfaction is what a property forbids."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from mipverify.errors import InputError
from mipverify.specification.exact import MOST_BITS, float_if_exact, nearest_float, round_exact, shorten, show_exact

_ROWS_IN_A_LABEL = 4
_TERMS_IN_A_LABEL = 6


class Row(NamedTuple):
    """One exact inequality: sum of `outputs[i] * Y_i` plus sum of `inputs[j] * X_j` at most (`strict`: below) `offset`.

    No stored coefficient is zero.
    """

    outputs: Mapping[int, Fraction]
    inputs: Mapping[int, Fraction]
    offset: Fraction
    strict: bool = False

    def satisfied(self, x: Sequence[float], y: Sequence[float]) -> bool:
        """Exact decision at finite floats."""
        total = sum((c * Fraction(y[i]) for i, c in self.outputs.items()), Fraction(0))
        total += sum((c * Fraction(x[j]) for j, c in self.inputs.items()), Fraction(0))
        return total < self.offset if self.strict else total <= self.offset

    def __str__(self) -> str:
        terms = [(c, f"Y_{i}") for i, c in self.outputs.items()] + [(c, f"X_{j}") for j, c in self.inputs.items()]
        left = [(c, v) for c, v in terms if c > 0] or [(Fraction(0), "")]
        right = [(-c, v) for c, v in terms if c < 0]
        relation = "<" if self.strict else "<="
        if terms and all(c < 0 for c, _ in terms):  # -Y_0 <= -1 reads better as Y_0 >= 1
            return f"{_sum(right, Fraction(0))} {relation.replace('<', '>')} {show_exact(-self.offset)}"
        return f"{_sum(left, Fraction(0))} {relation} {_sum(right, self.offset)}"


def _sum(terms: Sequence[tuple[Fraction, str]], constant: Fraction) -> str:
    words = [v if c == 1 else f"{show_exact(c)} {v}".strip() for c, v in terms[:_TERMS_IN_A_LABEL]]
    words += ["…"] * (len(terms) > _TERMS_IN_A_LABEL)
    if constant or not words:
        words.append(show_exact(constant))
    return " + ".join(words)


@dataclass(frozen=True, eq=False, repr=False)
class Condition:
    """The outputs y (and inputs x) at which `output_rows @ y + input_rows @ x <= offset` holds in every row.

    `output_rows`: float64 (m, k). `input_rows`: CSR float64 (m, n), or None when no row mentions an input.
    `offset`: float64 (m,), rounded up, so that with exact coefficients these arrays describe a superset of the exact
    condition. `coefficients_exact` is False when a coefficient is no float64 even after scaling its row; the arrays
    then hold the nearest ones, and a proof has to allow for half a unit in the last place of each.
    `strict`: bool (m,), rows that the property states with `<`; the float arrays describe their closure.
    `rows` are the exact inequalities. m is at least 1. `name`: what to call it, if not by its rows.
    """

    output_rows: NDArray[np.float64]
    input_rows: Any
    offset: NDArray[np.float64]
    strict: NDArray[np.bool_]
    coefficients_exact: bool
    rows: tuple[Row, ...] = field(compare=False)
    name: str | None = None

    def __post_init__(self) -> None:
        for array in (self.output_rows, self.offset, self.strict):
            array.setflags(write=False)

    @classmethod
    def from_rows(cls, rows: Sequence[Row], num_inputs: int, num_outputs: int, name: str | None = None) -> Condition:
        """Turn exact rows into arrays; without any row the condition always holds, and one row `0 <= 0` says so.

        Raises:
            InputError: the numbers of a row are so large or so different that no floats stand for them.
        """
        return cls.many([rows], num_inputs, num_outputs, [name])[0]

    @classmethod
    def many(
        cls,
        rows: Sequence[Sequence[Row]],
        num_inputs: int,
        num_outputs: int,
        names: Sequence[str | None] | None = None,
    ) -> list[Condition]:
        """The same for many conditions at once, whose arrays are parts of common ones."""
        kept = [tuple(some) or (Row({}, {}, Fraction(0)),) for some in rows]
        flat = [row for some in kept for row in some]
        scaled = [representable(row) for row in flat]
        offset = round_exact([row.offset for row in scaled]).up64
        for r in np.flatnonzero(~np.isfinite(offset)).tolist():
            raise _unusable(flat[r])
        output_rows, strict = np.zeros((len(flat), num_outputs)), np.array([row.strict for row in flat])
        inexact = _fill(output_rows, [row.outputs for row in scaled], flat)
        inputs = None
        if any(row.inputs for row in flat):
            inputs = scipy.sparse.lil_array((len(flat), num_inputs))
            inexact |= _fill(inputs, [row.inputs for row in scaled], flat)
            inputs = scipy.sparse.csr_array(inputs)
        found, start = [], 0
        for k, some in enumerate(kept):
            part = slice(start, start := start + len(some))
            mine = inputs[part] if inputs is not None and any(row.inputs for row in some) else None
            exact = not inexact or inexact.isdisjoint(range(part.start, part.stop))
            name = None if names is None else names[k]
            found.append(cls(output_rows[part], mine, offset[part], strict[part], exact, some, name))
        return found

    @cached_property
    def label(self) -> str:
        """The condition in words."""
        rows = " and ".join(map(str, self.rows[:_ROWS_IN_A_LABEL]))
        return self.name or rows + " and …" * (len(self.rows) > _ROWS_IN_A_LABEL)

    def satisfied(self, x: ArrayLike, y: ArrayLike) -> bool:
        """Exact decision for one input and one output of any shapes; outputs that are not finite satisfy nothing."""
        flat_x, flat_y = np.asarray(x).reshape(-1), np.asarray(y).reshape(-1)
        if flat_y.size != self.output_rows.shape[1]:
            raise ValueError(f"{flat_y.size} outputs given to a condition on {self.output_rows.shape[1]}")
        if not (np.isfinite(flat_y).all() and np.isfinite(flat_x).all()):
            return False
        inputs, outputs = flat_x.tolist(), flat_y.tolist()
        return all(row.satisfied(inputs, outputs) for row in self.rows)

    def margin(self, y: ArrayLike, x: ArrayLike | None = None) -> NDArray[np.float64]:
        """Left sides minus offsets in float64: outputs (..., k) and inputs (..., n) -> (..., m).

        The condition holds, up to rounding, where no entry is positive; NaN stays NaN. `x` is needed when
        `input_rows` is not None.
        """
        value = np.asarray(y, np.float64) @ self.output_rows.T - self.offset
        if self.input_rows is None:
            return value
        if x is None:
            raise ValueError(f"condition {self.label} relates inputs to outputs: margin needs the inputs")
        wide = np.asarray(x, np.float64)
        linear = (self.input_rows @ wide.reshape(-1, wide.shape[-1]).T).T
        return value + linear.reshape(*wide.shape[:-1], -1)

    def __repr__(self) -> str:
        return f"Condition({self.label})"


def _fill(target: Any, coefficients: Sequence[Mapping[int, Fraction]], rows: Sequence[Row]) -> set[int]:
    """Write coefficients, none of which is zero, as floats; returns the rows where they are not exact."""
    inexact = set()
    for r, entries in enumerate(coefficients):
        for i, coefficient in entries.items():
            if coefficient.denominator == 1 and -_SMALL < coefficient.numerator < _SMALL:
                target[r, i] = coefficient.numerator
                continue
            value = nearest_float(coefficient)
            if value == 0 or not math.isfinite(value):
                raise _unusable(rows[r])
            if value != coefficient:
                inexact.add(r)
            target[r, i] = value
    return inexact


def _unusable(row: Row) -> InputError:
    return InputError(f"a condition with numbers that no float64 stands for: {shorten(str(row), 160)}")


def representable(row: Row) -> Row:
    """The row, scaled by a positive number when that makes every coefficient a float64.

    Decimal coefficients such as 0.1 are no binary floats, but small integers times a common factor are: the same
    set of points is then described without an error term.

    Raises:
        InputError: a coefficient is beyond the range of floats.
    """
    coefficients = [*row.outputs.values(), *row.inputs.values()]
    if all(c.denominator == 1 and -_SMALL < c.numerator < _SMALL for c in coefficients):
        return row
    if all(float_if_exact(c) is not None for c in coefficients):
        return row
    if not all(_LEAST <= abs(c) <= _MOST for c in coefficients):
        raise _unusable(row)
    common = 1
    for coefficient in coefficients:
        common = math.lcm(common, coefficient.denominator)
        if common.bit_length() > MOST_BITS:
            return row
    factor = Fraction(common)
    factor /= math.gcd(*(int(c * factor) for c in coefficients))
    factor *= Fraction(2) ** -_exponent(factor)
    scaled = [c * factor for c in coefficients]
    return row if any(float_if_exact(c) is None for c in scaled) else _times(row, factor)


_SMALL = 2**53
_LEAST, _MOST = Fraction(np.finfo(np.float64).tiny), Fraction(np.finfo(np.float64).max)


def _exponent(value: Fraction) -> int:
    """About log2 of a positive number."""
    return value.numerator.bit_length() - value.denominator.bit_length()


def _times(row: Row, factor: Fraction) -> Row:
    return Row(
        {i: c * factor for i, c in row.outputs.items()},
        {j: c * factor for j, c in row.inputs.items()},
        row.offset * factor,
        row.strict,
    )
