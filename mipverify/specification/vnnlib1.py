"""Reader of VNN-LIB 1: assertions in SMT-LIB syntax over inputs X_i and outputs Y_j.

Written by hand because the official parser reads VNN-LIB 2 only. Linear in the length of the file: one regular
expression finds the tokens, among them the bounds on single inputs that make up nearly all of a usual property, and
every parenthesis is evaluated when it closes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import NoReturn, TypeAlias

from mipverify.errors import InputError
from mipverify.specification.cases import Variables, build_cases
from mipverify.specification.exact import no_number, parse_decimal, shorten
from mipverify.specification.normal_form import (
    Bound,
    Dnf,
    Linear,
    comparison,
    conjunction,
    disjunction,
    linear_difference,
    linear_product,
    linear_quotient,
    linear_sum,
)
from mipverify.specification.specification import Case

# A bound on one variable, asserted by itself or part of something else, is one token: files consist of them.
_TOKEN = re.compile(
    r"""
      (?P<assert>\(\s*assert\s*)?
      \(\s*(?P<relation><=|>=|<|>)\s+(?P<name>[XY]_(?:0|[1-9][0-9]{0,8}))\s+(?P<value>[-+.0-9][^\s();]*)\s*\)
      (?(assert)\s*\))
    | (?P<comment>;[^\r\n]*)
    | (?P<open>\()
    | (?P<close>\))
    | (?P<symbol>[^\s();]+)
    """,
    re.VERBOSE,
)
_VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})")
_COMPARISONS = ("<=", ">=", "<", ">", "=")
_IGNORED = ("set-logic", "set-info", "set-option", "check-sat", "get-model", "exit")


class _Linear:
    """An arithmetic value on the parser's stack, owned by the parenthesis that holds it."""

    __slots__ = ("terms",)

    def __init__(self, terms: Linear) -> None:
        self.terms = terms


_Item: TypeAlias = "str | _Linear | Dnf"


def parse_vnnlib1(text: str, path: str, assumed: float | None = None) -> tuple[Case, ...]:
    """The cases of a VNN-LIB 1 property; assumed: as in `Variables`.

    Raises:
        InputError: names `path` and, for what stands at one place, the line.
    """
    parser = _Parser(text, path)
    try:
        parser.run()
        variables = replace(parser.variables(), assumed=assumed)
        return build_cases(parser.asserted, variables)
    except _AtPosition as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{path}, line {line}: {error}") from None
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None


class _AtPosition(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


class _Parser:
    def __init__(self, text: str, path: str) -> None:
        self.text = text
        self.path = path
        self.declared: dict[str, set[int]] = {"X": set(), "Y": set()}
        self.names: dict[str, int] = {}  # declared variables, as `Linear` has them
        self.asserted: list[Dnf] = []
        # Open parentheses: (position, items so far); the outermost entry is the file.
        self.stack: list[tuple[int, list[_Item]]] = [(0, [])]

    def run(self) -> None:
        stack, names = self.stack, self.names
        for token in _TOKEN.finditer(self.text):
            kind = token.lastgroup
            if kind == "value":
                asserted, relation, name, literal = token.group("assert", "relation", "name", "value")
                value = parse_decimal(literal)
                if value is None:
                    self.fail(no_number(literal), token.start())
                variable = names.get(name)
                if variable is None:
                    self.fail(f"{name} is not declared", token.start())
                bound: Dnf = [[Bound(variable, relation[0] == "<", value, len(relation) == 1)]]
                if asserted is None:
                    if len(stack) == 1:
                        self.fail("a comparison outside of an assertion", token.start())
                    stack[-1][1].append(bound)
                elif len(stack) == 1:
                    self.asserted.append(bound)
                else:
                    self.fail("'assert' is not supported within another expression", token.start())
            elif kind == "open":
                stack.append((token.start(), []))
            elif kind == "close":
                if len(stack) == 1:
                    self.fail("a closing parenthesis without an opening one", token.start())
                position, items = stack.pop()
                try:
                    self.close(position, items)
                except InputError as error:
                    self.fail(str(error), position)
            elif kind == "symbol":
                if len(stack) == 1:
                    self.fail(f"expected an opening parenthesis, found {shorten(token.group())!r}", token.start())
                stack[-1][1].append(token.group())
        if len(stack) > 1:
            self.fail("a parenthesis is never closed", stack[-1][0])

    def close(self, position: int, items: list[_Item]) -> None:
        """Evaluate one parenthesis and hand its value to the one around it."""
        around = self.stack[-1][1]
        if not items and around[:1] == ["declare-fun"]:
            return
        if not items or not isinstance(items[0], str):
            self.fail("expected an operator after the opening parenthesis", position)
        operator, arguments = items[0], items[1:]
        if len(self.stack) == 1:
            self.command(operator, arguments, position)
        elif operator in ("and", "or"):
            parts = [self.boolean(item, position) for item in arguments]
            around.append(conjunction(parts) if operator == "and" else disjunction(parts))
        elif operator in _COMPARISONS:
            around.append(self.compare(operator, arguments, position))
        elif operator in _ARITHMETIC:
            if not arguments:
                self.fail(f"{operator!r} without arguments", position)
            around.append(_Linear(_ARITHMETIC[operator]([self.linear(item, position) for item in arguments])))
        else:
            self.fail(f"{shorten(operator)!r} is not supported (and, or, <=, >=, <, >, =, +, -, *, / are)", position)

    def command(self, name: str, arguments: list[_Item], position: int) -> None:
        if name == "assert":
            if len(arguments) != 1:
                self.fail(f"assert takes one argument, not {len(arguments)}", position)
            self.asserted.append(self.boolean(arguments[0], position))
        elif name in ("declare-const", "declare-fun"):
            self.declare(arguments, position)
        elif name not in _IGNORED:
            self.fail(f"unknown command {shorten(name)!r}", position)

    def declare(self, arguments: list[_Item], position: int) -> None:
        match arguments:
            case [str(name), "Real"] if (variable := _VARIABLE.fullmatch(name)) is not None:
                indices = self.declared[variable[1]]
                if int(variable[2]) in indices:
                    self.fail(f"{name} is declared twice", position)
                indices.add(int(variable[2]))
                self.names[name] = int(variable[2]) if variable[1] == "X" else -1 - int(variable[2])
            case _:
                self.fail("a declaration must read (declare-const X_i Real) or (declare-const Y_i Real)", position)

    def compare(self, operator: str, arguments: list[_Item], position: int) -> Dnf:
        if len(arguments) < 2:
            self.fail(f"{operator!r} takes at least two arguments, not {len(arguments)}", position)
        values = [self.linear(item, position) for item in arguments]
        pairs = pairwise(values)  # (<= a b c) is a <= b and b <= c
        return conjunction([comparison(operator, dict(left), dict(right)) for left, right in pairs])

    def boolean(self, item: _Item, position: int) -> Dnf:
        if isinstance(item, list):
            return item
        if item in ("true", "false"):
            return [[]] if item == "true" else []
        what = repr(shorten(item)) if isinstance(item, str) else "an arithmetic expression"
        raise _AtPosition(f"expected a comparison, found {what}", position)

    def linear(self, item: _Item, position: int) -> Linear:
        if isinstance(item, _Linear):
            return item.terms
        if isinstance(item, list):
            self.fail("expected a number or a variable, found a comparison", position)
        variable = self.names.get(item)
        if variable is not None:
            return {variable: Fraction(1)}
        if _VARIABLE.fullmatch(item) is not None:
            self.fail(f"{item} is not declared", position)
        number = parse_decimal(item)
        if number is None:
            wrong = f"{shorten(item)!r} is neither a number nor a variable X_i or Y_i"
            self.fail(no_number(item) if item[0] in "+-.0123456789" else wrong, position)
        return {None: Fraction(number)}

    def variables(self) -> Variables:
        """How many variables are declared: X_0 .. X_(n-1) and Y_0 .. Y_(k-1) without a gap."""
        for kind, what in (("X", "input"), ("Y", "output")):
            indices = self.declared[kind]
            if not indices:
                raise InputError(f"no {what} {kind}_0 is declared")
            if len(indices) <= max(indices):
                gap = next(i for i in range(len(indices)) if i not in indices)
                raise InputError(f"{kind}_{gap} is not declared, but {kind}_{max(indices)} is")
        return Variables(len(self.declared["X"]), len(self.declared["Y"]), "X_{}".format)

    def fail(self, message: str, position: int) -> NoReturn:
        raise _AtPosition(message, position)


_ARITHMETIC: dict[str, Callable[[list[Linear]], Linear]] = {
    "+": linear_sum,
    "-": linear_difference,
    "*": linear_product,
    "/": linear_quotient,
}
