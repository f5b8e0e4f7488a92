"""Reads command lines of the plain kind. What is left to typer: help, mistakes, and whatever has two readings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

from mipverify.cli.declare import Parameter, parameters

# What a value must look like, for each type of a parameter.
_FORMS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    str: (r".+", str),
    int: (r"[0-9]{1,18}", int),
    float: (r"[0-9]{1,18}(\.[0-9]{1,18})?(e-?[0-9]{1,2})?", float),
}


def plain_values(command: Callable[..., Any], arguments: Sequence[str]) -> dict[str, Any] | None:
    """What typer would call a command with, given these arguments; None where it must be asked."""
    known = parameters(command)
    named = {flag: each for each in known for flag in each.flags or ()}
    places = [each for each in known if each.flags is None]
    found: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            flag, equals, attached = word.partition("=")
            each = named.get(flag)
            if each is None or (equals and (each.type is bool or not flag.startswith("--"))):
                return None
            if each.type is bool:
                value = True
            else:
                value = _value(each, attached if equals else "".join(rest[:1]))
                del rest[: 0 if equals else 1]
        elif places:
            each = places.pop(0)
            value = _value(each, word)
        else:
            return None
        if each.name in found or value is None:
            return None
        found[each.name] = value
    missing = [each for each in known if each.name not in found]
    if any(each.default is inspect.Parameter.empty for each in missing):
        return None
    return {each.name: found.get(each.name, each.default) for each in known}


def _value(parameter: Parameter, text: str) -> Any:
    """What a word means; None where typer must say, such as for one that may be meant for an option."""
    form = next((form for kind, form in _FORMS.items() if parameter.type in (kind, kind | None)), None)
    if form is None or text.startswith("-") or not re.fullmatch(form[0], text, re.DOTALL):
        return None
    return form[1](text)
