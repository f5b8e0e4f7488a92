"""Conditions on outputs: conjunctions of linear inequalities whose satisfaction is what a property forbids."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from mipverify.specification.exact import float_if_exact, float_up, show_exact

_ROWS_IN_A_LABEL = 4
_TERMS_IN_A_LABEL = 6


@dataclass(frozen=True)
class Row:
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
    `rows` are the exact inequalities. m is at least 1.
    """

    output_rows: NDArray[np.float64]
    input_rows: Any
    offset: NDArray[np.float64]
    strict: NDArray[np.bool_]
    coefficients_exact: bool
    label: str
    rows: tuple[Row, ...] = field(compare=False)

    def __post_init__(self) -> None:
        for array in (self.output_rows, self.offset, self.strict):
            array.setflags(write=False)

    @classmethod
    def from_rows(cls, rows: Sequence[Row], num_inputs: int, num_outputs: int, label: str | None = None) -> Condition:
        """Turn exact rows into arrays; without any row the condition always holds, and one row `0 <= 0` says so."""
        kept = tuple(rows) or (Row({}, {}, Fraction(0)),)
        scaled = [_representable(row) for row in kept]
        output_rows = np.zeros((len(kept), num_outputs))
        inputs = scipy.sparse.lil_array((len(kept), num_inputs)) if any(row.inputs for row in kept) else None
        exact = True
        for r, row in enumerate(scaled):
            for i, coefficient in row.outputs.items():
                output_rows[r, i] = float(coefficient)
                exact = exact and output_rows[r, i] == coefficient
            for j, coefficient in row.inputs.items():
                assert inputs is not None
                inputs[r, j] = float(coefficient)
                exact = exact and inputs[r, j] == coefficient
        text = " and ".join(str(row) for row in kept[:_ROWS_IN_A_LABEL]) + " and …" * (len(kept) > _ROWS_IN_A_LABEL)
        return cls(
            output_rows,
            None if inputs is None else scipy.sparse.csr_array(inputs),
            np.array([float_up(row.offset) for row in scaled]),
            np.array([row.strict for row in kept]),
            exact,
            text if label is None else label,
            kept,
        )

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


def _representable(row: Row) -> Row:
    """The row, scaled by a positive number near 1 when that makes every coefficient a float64.

    Decimal coefficients such as 0.1 are no binary floats, but small integers times a common factor are: the same
    set of points is then described without an error term.
    """
    coefficients = [*row.outputs.values(), *row.inputs.values()]
    if all(float_if_exact(c) is not None for c in coefficients):
        return row
    factor = Fraction(math.lcm(*(c.denominator for c in coefficients)))
    common = math.gcd(*(int(c * factor) for c in coefficients))
    factor /= common
    factor /= Fraction(2) ** round(math.log2(factor)) if factor < 2**1000 else 1
    scaled = [c * factor for c in coefficients]
    if any(float_if_exact(c) is None for c in scaled):
        return row
    return Row(
        {i: c * factor for i, c in row.outputs.items()},
        {j: c * factor for j, c in row.inputs.items()},
        row.offset * factor,
        row.strict,
    )
