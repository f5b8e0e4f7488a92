"""Disjunctive normal form: and/or trees over exact linear inequalities become a list of clauses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from mipverify.errors import InputError
from mipverify.specification.conditions import Row
from mipverify.specification.exact import MOST_BITS, Exact, nearest_float, show_exact

MAX_CLAUSES = 100_000
#: Keeps the memory of a normal form below about a gigabyte.
MAX_ATOMS = 20_000_000
_MANY = 1000  # clauses, up to which their order is kept


class Bound(NamedTuple):
    """One exact bound of one variable, input i as i and output j as -1 - j; `is_open`: the variable differs from it."""

    variable: int
    is_upper: bool
    value: Exact
    is_open: bool


Atom: TypeAlias = Bound | Row
Clause: TypeAlias = list[Atom]
#: A boolean expression as the list of its clauses: [] is false, [[]] is true. Whoever is given one may change it.
Dnf: TypeAlias = list[Clause]

#: A linear expression: coefficient by variable, X_i as i, Y_j as -1 - j, the constant term under None.
Linear: TypeAlias = dict[int | None, Fraction]


def disjunction(parts: Sequence[Dnf]) -> Dnf:
    """Any of the parts, which are used up."""
    clauses = max(parts, key=len, default=[])
    if len(clauses) < _MANY:
        clauses = [clause for part in parts for clause in part]
    else:  # the largest part collects the others: expressions that are nested deeply stay linear in their length
        for part in parts:
            if part is not clauses:
                clauses.extend(part)
    _guard(len(clauses), 0)
    return clauses


def conjunction(parts: Iterable[Dnf]) -> Dnf:
    """All of the parts, which are used up: the product of those that have several clauses."""
    single: list[Clause] = []
    product: Dnf = [[]]
    for part in parts:
        if len(part) == 1:
            single.append(part[0])
            continue
        if part and len(product) > 1:
            atoms = len(part) * sum(map(len, product)) + len(product) * sum(map(len, part))
            _guard(len(product) * len(part), atoms)
        product = [left + right for left in product for right in part] if len(product) > 1 else part
        if not product:
            return []
    if not single:
        return product
    common = max(single, key=len)
    for clause in single:
        if clause is not common:
            common.extend(clause)
    if len(product) == 1:
        return [common + product[0] if product[0] else common]
    _guard(len(product), len(product) * len(common))
    return [common + clause for clause in product]


def _guard(clauses: int, atoms: int) -> None:
    if clauses > MAX_CLAUSES or atoms > MAX_ATOMS:
        size = f"{clauses} conjunctions" + (f" of {atoms} comparisons" if atoms else "")
        raise InputError(f"the property expands to {size}; too many to verify")


def comparison(operator: str, left: Linear, right: Linear) -> Dnf:
    """`left operator right`, operator one of <= >= < > = == !=; comparisons of constants are decided here.

    Takes over `left` and `right`: both may be changed.
    """
    if operator in ("=", "=="):
        return conjunction([comparison("<=", dict(left), dict(right)), comparison(">=", left, right)])
    if operator == "!=":
        return disjunction([comparison("<", dict(left), dict(right)), comparison(">", left, right)])
    if operator in (">=", ">"):
        left, right = right, left
    strict = operator in ("<", ">")
    add(left, right, Fraction(-1))
    offset = -left.pop(None, Fraction(0))
    terms = {v: c for v, c in left.items() if v is not None and c}
    if not terms:
        return [[]] if offset > 0 or (offset == 0 and not strict) else []
    for value in (offset, *terms.values()):
        limited(value)
    if len(terms) == 1:
        ((variable, coefficient),) = terms.items()
        if not 0 < abs(nearest_float(coefficient)) < math.inf:
            raise InputError(f"a coefficient of {show_exact(coefficient)}, which no float64 stands for")
        return [[Bound(variable, coefficient > 0, limited(offset / coefficient), strict)]]
    outputs = {-1 - v: c for v, c in terms.items() if v < 0}
    return [[Row(outputs, {v: c for v, c in terms.items() if v >= 0}, offset, strict)]]


def limited(value: Fraction) -> Fraction:
    """The value. Raises InputError where it has become too large to calculate with."""
    if value.numerator.bit_length() > MOST_BITS or value.denominator.bit_length() > MOST_BITS:
        raise InputError("a number has too many digits to calculate with")
    return value


def add(total: Linear, other: Linear, factor: Fraction | int = 1) -> None:
    """total += factor * other, in place."""
    for variable, coefficient in other.items():
        known = total.get(variable)
        if known is None:
            total[variable] = factor * coefficient if factor != 1 else coefficient
        else:
            total[variable] = limited(known + factor * coefficient)


def linear_sum(values: list[Linear]) -> Linear:
    """The sum of at least one value; the values are used up."""
    # The largest operand collects the others: right-nested sums stay linear in their length.
    total = max(values, key=len)
    for value in values:
        if value is not total:
            add(total, value)
    return total


def linear_difference(values: list[Linear]) -> Linear:
    """The first value minus all others, or the negative of a single one; the values are used up."""
    negated = [{v: -c for v, c in value.items()} for value in (values[1:] or values)]
    return linear_sum([values[0], *negated]) if len(values) > 1 else negated[0]


def linear_product(values: list[Linear]) -> Linear:
    """The product of numbers and at most one value with variables; anything else is an `InputError`."""
    factor = Fraction(1)
    linear: Linear | None = None
    for value in values:
        if value.keys() <= {None}:
            factor = limited(factor * value.get(None, Fraction(0)))
        elif linear is None:
            linear = value
        else:
            raise InputError("a product of two variables is not linear")
    return {None: factor} if linear is None else {v: limited(factor * c) for v, c in linear.items()}


def linear_quotient(values: list[Linear]) -> Linear:
    """The first value divided by all others, which must be numbers but zero; anything else is an `InputError`."""
    factor = Fraction(1)
    for value in values[1:]:
        if not value.keys() <= {None}:
            raise InputError("a division by a variable is not linear")
        factor = limited(factor * value.get(None, Fraction(0)))
    if len(values) < 2 or factor == 0:
        raise InputError("a division by zero" if len(values) > 1 else "a division needs a divisor")
    return {v: limited(c / factor) for v, c in values[0].items()}
