"""Disjunctive normal form: and/or trees over exact linear inequalities become a list of clauses."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from mipverify.errors import InputError
from mipverify.specification.conditions import Row
from mipverify.specification.exact import Exact

MAX_CLAUSES = 100_000
#: Keeps the memory of a normal form below about a gigabyte.
MAX_ATOMS = 20_000_000


class Bound(NamedTuple):
    """One exact bound of one input; `is_open`: the input differs from it."""

    variable: int
    is_upper: bool
    value: Exact
    is_open: bool


Atom: TypeAlias = Bound | Row
Clause: TypeAlias = tuple[Atom, ...]
#: A boolean expression as the list of its clauses: [] is false, [()] is true.
Dnf: TypeAlias = list[Clause]

#: A linear expression: coefficient by variable, X_i as i, Y_j as -1 - j, the constant term under None.
Linear: TypeAlias = dict[int | None, Fraction]


def disjunction(parts: Iterable[Dnf]) -> Dnf:
    """Any of the parts."""
    clauses = [clause for part in parts for clause in part]
    _guard(len(clauses), sum(map(len, clauses)))
    return clauses


def conjunction(parts: Iterable[Dnf]) -> Dnf:
    """All of the parts: the product of those that have several clauses."""
    common: list[Atom] = []
    product: Dnf = [()]
    for part in parts:
        if len(part) == 1:
            common.extend(part[0])
            continue
        if part and len(product) > 1:
            atoms = len(part) * sum(map(len, product)) + len(product) * sum(map(len, part))
            _guard(len(product) * len(part), atoms)
        product = [left + right for left in product for right in part] if len(product) > 1 else part
        if not product:
            return []
    if not common:
        return product
    _guard(len(product), len(product) * len(common))
    shared = tuple(common)
    return [shared + clause for clause in product]


def _guard(clauses: int, atoms: int) -> None:
    if clauses > MAX_CLAUSES or atoms > MAX_ATOMS:
        raise InputError(f"the property expands to {clauses} conjunctions of {atoms} comparisons; too many to verify")


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
        return [()] if offset > 0 or (offset == 0 and not strict) else []
    if len(terms) == 1:
        ((variable, coefficient),) = terms.items()
        if variable >= 0:
            return [(Bound(variable, coefficient > 0, offset / coefficient, strict),)]
    outputs = {-1 - v: c for v, c in terms.items() if v < 0}
    return [(Row(outputs, {v: c for v, c in terms.items() if v >= 0}, offset, strict),)]


def add(total: Linear, other: Linear, factor: Fraction | int = 1) -> None:
    """total += factor * other, in place."""
    for variable, coefficient in other.items():
        total[variable] = total.get(variable, Fraction(0)) + factor * coefficient


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
            factor *= value.get(None, Fraction(0))
        elif linear is None:
            linear = value
        else:
            raise InputError("a product of two variables is not linear")
    return {None: factor} if linear is None else {v: factor * c for v, c in linear.items()}
