"""VNN-LIB properties, version 1 and the part of version 2 with one network, exactly: as a disjunction of row lists."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from mipverify_check.errors import BadInputError

Linear = dict[int | None, Fraction]  # by variable: input i as i, output j as -1 - j, None for the constant
MOST_CLAUSES = 20_000
# Names of version 2 may have an index, X[0, 1], and shapes stand by themselves, [1, 5].
_TOKEN = re.compile(r"\s+|;[^\r\n]*|[()]|[^\s();\[\]]+(?:\[[^\]()]*\])?|\[[\d\s,]*\]")
_DECIMAL = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,4})?"
_NUMBER = re.compile(_DECIMAL)
_BOUND = re.compile(rf"\(assert\s+\((<=|>=)\s+([XY]_\d{{1,8}})\s+({_DECIMAL})\s*\)\s*\)")
_REAL = ("Real", "real", "float16", "float32", "float64", "F16", "F32", "F64", "bfloat16")


@dataclass(frozen=True)
class Row:
    """sum of coefficients times variables + constant <= 0, or < 0; the first coefficient is 1 or -1."""

    key: tuple[tuple[int, Fraction], ...]
    constant: Fraction
    strict: bool

    def follows_from(self, other: Row) -> bool:
        """Whether this row, which has the same coefficients, holds wherever the other does."""
        return self.constant < other.constant or (self.constant == other.constant and other.strict >= self.strict)


def row(terms: Linear, strict: bool) -> Row | bool:
    """The row `terms <= 0` (or < 0), scaled; True or False where it has no variables."""
    key = sorted((k, v) for k, v in terms.items() if k is not None and v)
    constant = terms.get(None, Fraction(0))
    if not key:
        return constant < 0 if strict else constant <= 0
    scale = abs(key[0][1])
    return Row(tuple((k, v / scale) for k, v in key), constant / scale, strict)


Clause = list[Row]
Dnf = list[Clause]


@dataclass
class Property:
    """What a file asserts: `common`, and one clause at least. inputs, outputs: how many variables there are."""

    inputs: int
    outputs: int
    common: Clause
    clauses: Dnf


@dataclass
class _Reader:
    path: str
    variables: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    counts: list[int] = field(default_factory=lambda: [0, 0])  # inputs, outputs

    def declare(self, items: list[Any]) -> None:
        """(declare-const X_i Real); in version 2 (declare-network N (declare-input X T [..]) (declare-output ..))."""
        if items[0] == "declare-network":
            parts = [item for item in items[2:] if isinstance(item, list)]
            if [p[0] for p in parts] != ["declare-input", "declare-output"] or self.shapes:
                raise BadInputError("one network with one input and one output is supported")
            for place, part in enumerate(parts):
                _, name, kind, *sizes = part
                numbers = [int(v) for v in re.findall(r"\d+", " ".join(map(str, sizes)))]
                if kind not in _REAL or math.prod(numbers) > 10**8:
                    raise BadInputError(f"a declaration of type {kind} and shape {numbers}")
                self.shapes[str(name)] = (place, tuple(numbers))
                self.counts[place] = math.prod(numbers)
            return
        name = str(items[1])
        if not re.fullmatch(r"[XY]_\d{1,8}", name) or name in self.variables or items[-1] != "Real":
            raise BadInputError(f"a declaration of {name!r}")
        place = "XY".index(name[0])
        self.counts[place] += 1
        self.variables[name] = int(name[2:]) if place == 0 else -1 - int(name[2:])

    def bound(self, found: re.Match[str]) -> Dnf:
        """(assert (<= X_i 0.5)), or >=, or of an output."""
        variable, sign = self.variables.get(found[2]), 1 if found[1] == "<=" else -1
        if variable is None or len(found[3]) > 10_000:
            raise BadInputError(f"{found[2]} is not declared, or its bound is too long")
        return [[Row(((variable, Fraction(sign)),), -sign * Fraction(found[3]), False)]]

    def linear(self, item: Any) -> Linear:
        if isinstance(item, str):
            if item in self.variables:
                return {self.variables[item]: Fraction(1)}
            found = re.fullmatch(r"([^\[\]]+)(?:\[([\d\s,]*)\])?", item)
            if found and found[1] in self.shapes:
                place, shape = self.shapes[found[1]]
                index = [int(v) for v in re.findall(r"\d+", found[2] or "")]
                if len(index) != len(shape) or any(i >= s for i, s in zip(index, shape, strict=True)):
                    raise BadInputError(f"{item!r} is out of range")
                flat = 0
                for i, s in zip(index, shape, strict=True):
                    flat = flat * s + i
                return {flat if place == 0 else -1 - flat: Fraction(1)}
            if not _NUMBER.fullmatch(item) or len(item) > 10_000:
                raise BadInputError(f"{item[:80]!r} is neither a number nor a variable")
            return {None: Fraction(item)}
        if not item or item[0] not in ("+", "-", "*", "/") or len(item) < 2:
            raise BadInputError("an arithmetic expression was expected")
        first, *others = [self.linear(part) for part in item[1:]]
        if item[0] == "-" and not others:
            return {k: -v for k, v in first.items()}
        total = dict(first)
        for other in others:
            if item[0] in "+-":
                for k, v in other.items():
                    total[k] = total.get(k, Fraction(0)) + (v if item[0] == "+" else -v)
                continue
            if set(total) <= {None} and item[0] == "*":
                total, other = other, total
            factor = other.get(None, Fraction(0))
            if not set(other) <= {None} or (item[0] == "/" and not factor):
                raise BadInputError("an expression that is not linear")
            total = {k: v * factor if item[0] == "*" else v / factor for k, v in total.items()}
        return total

    def boolean(self, item: Any) -> Dnf:
        if item in ("true", "false"):
            return [[]] if item == "true" else []
        if not isinstance(item, list) or not item or not isinstance(item[0], str):
            raise BadInputError("a condition was expected")
        operator, *parts = item
        if operator == "or":
            return [clause for part in parts for clause in self.boolean(part)]
        if operator == "and":
            return conjunction([self.boolean(part) for part in parts])
        if operator not in ("<=", "<", ">=", ">", "=", "==") or len(parts) < 2:
            raise BadInputError(f"the condition {str(operator)[:80]!r} is not supported")
        values, rows = [self.linear(part) for part in parts], []
        for left, right in itertools.pairwise(values):
            if operator[0] in "<=":
                rows.append(row(_difference(left, right), operator == "<"))
            if operator[0] in ">=":
                rows.append(row(_difference(right, left), operator == ">"))
        return [] if False in rows else [[r for r in rows if isinstance(r, Row)]]


def _difference(a: Linear, b: Linear) -> Linear:
    return {k: a.get(k, Fraction(0)) - b.get(k, Fraction(0)) for k in a.keys() | b.keys()}


def conjunction(parts: list[Dnf]) -> Dnf:
    """The clauses of a conjunction: each is one clause of every part."""
    if math.prod(len(part) for part in parts) > MOST_CLAUSES:
        raise BadInputError("the property has too many cases")
    return [[r for clause in chosen for r in clause] for chosen in itertools.product(*parts)]


def parse(text: str, path: str) -> Property:
    """The property in the text of a file. Raises BadInputError."""
    stack: list[list[Any]] = [[]]
    position = 0
    while position < len(text):
        bound = _BOUND.match(text, position) if len(stack) == 1 else None
        if bound is not None:  # most files consist of these
            stack[0].append(bound)
            position = bound.end()
            continue
        token = _TOKEN.match(text, position)
        if token is None:
            raise BadInputError(f"{path}: character {position} cannot be read")
        position, word = token.end(), token.group()
        if word == "(":
            stack.append([])
        elif word == ")":
            closed = stack.pop()
            if not stack:
                raise BadInputError(f"{path}: a parenthesis too many")
            stack[-1].append(closed)
        elif word.strip() and word[0] != ";":
            stack[-1].append(word)
        if len(stack) > 200:
            raise BadInputError(f"{path}: parentheses are nested too deeply")
    if len(stack) > 1:
        raise BadInputError(f"{path}: a parenthesis is never closed")
    reader, asserted = _Reader(path), []
    try:
        for command in stack[0]:
            if isinstance(command, re.Match):
                asserted.append(reader.bound(command))
            elif command[0] in ("declare-const", "declare-fun", "declare-network"):
                reader.declare(command)
            elif command[0] == "assert" and len(command) == 2:
                asserted.append(reader.boolean(command[1]))
            elif command[0] != "vnnlib-version" and command[0] not in ("set-logic", "set-info", "check-sat"):
                raise BadInputError(f"the command {str(command[0])[:80]!r} is not supported")
        inputs, outputs = reader.counts
        for name, at in reader.variables.items():
            if max(at, -1 - at) >= (inputs if at >= 0 else outputs):
                raise BadInputError(f"{name} is declared, and not all before it")
        common = [r for part in asserted if len(part) == 1 for r in part[0]]
        return Property(inputs, outputs, common, conjunction([part for part in asserted if len(part) != 1]))
    except (BadInputError, ValueError, IndexError, TypeError) as error:
        raise BadInputError(f"{path}: {error}") from None
