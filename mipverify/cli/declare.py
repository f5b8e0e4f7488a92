"""What commands take, declared without typer: importing that takes longer than many a question."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, get_args, get_type_hints


@dataclass(frozen=True)
class Declared:
    """Stands in `Annotated[type, ...]` of a parameter. flags: names of an option; None for what its place tells.

    shown: metavar, help and whether the help shows the default, as typer takes them.
    """

    flags: tuple[str, ...] | None
    shown: dict[str, Any]


def argument(*, metavar: str | None = None, help: str, show_default: bool = True) -> Declared:  # noqa: A002
    """A value that its place tells."""
    return Declared(None, {"metavar": metavar, "help": help, "show_default": show_default})


def option(
    *flags: str,
    metavar: str | None = None,
    help: str | None = None,  # noqa: A002
    show_default: bool = True,
) -> Declared:
    """A value that its name tells: `--` and the parameter's, unless flags such as `--json` are given."""
    return Declared(flags, {"metavar": metavar, "help": help, "show_default": show_default})


@dataclass(frozen=True)
class Parameter:
    """What a command takes. flags as in `Declared`. default: `inspect.Parameter.empty` where it must be given."""

    name: str
    type: Any
    flags: tuple[str, ...] | None
    default: Any
    shown: dict[str, Any]


def parameters(command: Callable[..., Any]) -> list[Parameter]:
    """What a command takes, in the order of its signature."""
    hints, found = get_type_hints(command, include_extras=True), []
    for name, parameter in inspect.signature(command).parameters.items():
        of_type, declared = get_args(hints[name])
        flags = ("--" + name.replace("_", "-"),) if declared.flags == () else declared.flags
        found.append(Parameter(name, of_type, flags, parameter.default, declared.shown))
    return found


def with_typer(command: Callable[..., Any], typer: Any) -> Callable[..., Any]:
    """The same command with declarations of typer."""

    @wraps(command)
    def same(**given: Any) -> Any:
        return command(**given)

    taken = []
    for each in parameters(command):
        declared = typer.Argument(**each.shown) if each.flags is None else typer.Option(*each.flags, **each.shown)
        kind, of_type = inspect.Parameter.KEYWORD_ONLY, Annotated[each.type, declared]
        taken.append(inspect.Parameter(each.name, kind, default=each.default, annotation=of_type))
    same.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
    same.__annotations__ = {each.name: each.annotation for each in taken}
    return same
