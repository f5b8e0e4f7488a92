"""A program of several commands: what it calls for a command line, by itself or with typer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from mipverify import __version__, garbage
from mipverify.cli.streams import say

COMPLETION = "_MIPVERIFY_COMPLETE"  # set by the shell that asks how a command line could go on


class Program(NamedTuple):
    """commands: by name what each is for, in a line. find: the function of a command, whose module it imports.

    starting: commands that say themselves when they have started (`garbage.begin`). standard: whether its options are
    those of a standard, so that it has none of its own.
    """

    name: str
    help: str
    commands: dict[str, str]
    find: Callable[[str], Callable[..., int | None]]
    starting: frozenset[str] = frozenset()
    standard: bool = False

    def call(self, arguments: Sequence[str]) -> int | None:
        """Run the command that is asked for, or print help; the exit code, None for 0.

        Raises the usage errors of typer, which have a method `format_message`.
        """
        if not self.starting.intersection(arguments[:1]):
            garbage.begin()
        if arguments and arguments[0] in self.commands and COMPLETION not in os.environ:
            from mipverify.cli.plain import plain_values

            command = self.find(arguments[0])
            values = plain_values(command, arguments[1:])
            if values is not None:
                return command(**values)
        import typer

        # typer reads the annotations of every command that it is given, which takes as long as many a question.
        asked = arguments[:1] if arguments and arguments[0] in self.commands else self.commands
        command = typer.main.get_command(self.with_typer(typer, asked))
        code = command.main(list(arguments) or ["--help"], prog_name=self.name, standalone_mode=False)
        if code == 130:  # how typer reports Ctrl-C
            raise KeyboardInterrupt
        return code

    def with_typer(self, typer: Any, asked: Iterable[str]) -> Any:
        """These commands of it as an application of typer."""
        from mipverify.cli.declare import with_typer

        # Plain help: rich would double the time that `--help` takes.
        application = typer.Typer(
            help=self.help,
            rich_markup_mode=None,
            add_completion=not self.standard,
            context_settings={"help_option_names": ["-h", "--help"]},
        )

        def nothing() -> None:
            """Without any, typer would take a single command for the program."""

        def own(
            version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
        ) -> None:
            if version:
                say(f"{self.name} {__version__}")
                raise typer.Exit

        application.callback()(nothing if self.standard else own)
        for name in asked:
            application.command(name, short_help=self.commands[name])(with_typer(self.find(name), typer))
        return application
