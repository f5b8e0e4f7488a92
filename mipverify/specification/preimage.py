"""Conditions on what an increasing function gives, as conditions on the scores that it reads.

A network's final sigmoid or softmax is not piecewise linear, but a threshold on its value is one on a score: the
inverse of the function at the threshold. It is irrational, and rounded so that the condition on scores is met wherever
the one on values is: what excludes the former excludes the latter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Context, Decimal
from fractions import Fraction

from mipverify.errors import InputError
from mipverify.specification.conditions import Condition, Row

_PRECISE = Context(prec=60, Emin=-(10**9), Emax=10**9)
_ERROR = Fraction(1, 10**50)  # above the rounding errors of a few operations of 60 digits, relative to 1 + |value|
_NEVER, _ALWAYS = Row({}, {}, Fraction(-1)), Row({}, {}, Fraction(0))


def on_scores(condition: Condition, functions: Sequence[str], outputs: int) -> Condition:
    """The condition on the scores (outputs,) that is met wherever `condition` is met by what `functions` make of them.

    functions: "Sigmoid", "Softmax", "LogSoftmax" or "ArgMax", the innermost first; softmax runs over all entries.
    Raises InputError where no linear condition on scores says as much.
    """
    rows = [_row(row, tuple(functions), outputs) for row in condition.rows]
    inputs = 0 if condition.input_rows is None else condition.input_rows.shape[1]
    return Condition.from_rows(rows, inputs, outputs, condition.label)


def _row(row: Row, functions: tuple[str, ...], outputs: int) -> Row:
    """The row of scores; each of the cases below says which rows it is exact for, apart from rounding."""
    if not row.outputs:
        return row
    if row.inputs:
        raise InputError("it relates outputs to inputs")
    if _compares(row):
        return row  # all functions keep the order
    if functions == ("Sigmoid",) and len(row.outputs) == 1:
        return _threshold(row, {next(iter(row.outputs)): Fraction(1)}, _logit)
    if functions == ("LogSoftmax",) and sum(row.outputs.values()) == 0:
        return row  # what all entries have in common cancels
    if functions == ("Softmax",) and outputs == 2:
        first, second = (row.outputs.get(k, Fraction(0)) for k in range(2))
        # Both add up to one, and the first is the sigmoid of the difference.
        value = Row({0: first - second} if first != second else {}, {}, row.offset - second, row.strict)
        if not value.outputs:
            met = value.offset > 0 if value.strict else value.offset >= 0
            return _ALWAYS if met else _NEVER
        return _threshold(value, {0: Fraction(1), 1: Fraction(-1)}, _logit)
    if functions == ("LogSoftmax",) and outputs == 2 and len(row.outputs) == 1:
        mine = next(iter(row.outputs))
        return _threshold(row, {mine: Fraction(1), 1 - mine: Fraction(-1)}, _logit_of_exponential)
    raise InputError("it asks for more than their order")


def _compares(row: Row) -> bool:
    """Whether a row says which of two outputs is larger."""
    return len(row.outputs) == 2 and sum(row.outputs.values()) == 0 and row.offset == 0


def _threshold(row: Row, score: dict[int, Fraction], inverse: Callable[[Fraction], Fraction | bool]) -> Row:
    """c y <= b as a row of `score`, whose increasing function is y."""
    (coefficient,) = row.outputs.values()
    found = inverse(row.offset / coefficient)
    upper = coefficient > 0  # y <= threshold, else y >= threshold
    if isinstance(found, bool):  # all values lie below the threshold, or none does
        return _ALWAYS if found == upper else _NEVER
    sign = 1 if upper else -1
    slack = 0 if found == 0 else _ERROR * (1 + abs(found))
    return Row({k: sign * c for k, c in score.items()}, {}, sign * found + slack, row.strict)


def _logit(value: Fraction) -> Fraction | bool:
    """log(v / (1 - v)) up to _ERROR, 0 at 1/2 exactly; False for v <= 0, below all values, True for v >= 1."""
    if not 0 < value < 1:
        return value >= 1
    odds = value / (1 - value)
    if odds == 1:
        return Fraction(0)
    return Fraction(_PRECISE.ln(_quotient(odds)))


def _logit_of_exponential(value: Fraction) -> Fraction | bool:
    """v - log(1 - e^v) up to _ERROR; True for v >= 0."""
    if value >= 0:
        return True
    exponential = _PRECISE.exp(_quotient(value))
    rest = _PRECISE.subtract(Decimal(1), exponential)
    if rest < Decimal("1e-8"):  # of which 60 digits leave too few
        raise InputError("a logarithm so close to 0 is not supported")
    return value - Fraction(_PRECISE.ln(rest))


def _quotient(value: Fraction) -> Decimal:
    return _PRECISE.divide(Decimal(value.numerator), Decimal(value.denominator))
