"""Entry point of the command line: the commands, and the one place where outcomes become exit codes."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from mipverify import __version__, garbage
from mipverify.cli.exits import BAD_INPUT, DONE, INTERNAL, UNDECIDED
from mipverify.cli.program import COMPLETION, Program
from mipverify.cli.streams import (
    open_streams,
    printable,
    quiet_arithmetic,
    reader_is_gone,
    say,
    second_interrupt_ends,
    silence_stdout,
    tell,
)
from mipverify.errors import InputError, MipverifyError

COMMANDS = {
    "verify": "Prove a property, or find a counterexample.",
    "check": "Check a proof with a program of its own.",
    "inspect": "Show layers, ReLUs and unsupported operators.",
    "convert": "Write the weights of another tool as ONNX.",
    "export": "Write a question's MILP for other solvers.",
    "report": "Adversarial accuracy of a whole test set.",
    "benchmark": "Run a benchmark of VNN-COMP, beside other tools.",
    "distortion": "Distance to the closest adversarial input.",
    "compare": "How far two networks are apart.",
    "train": "Train a network that is robust and verifies fast.",
    "prune": "Remove small weights and ReLUs that hardly ever switch.",
    "finetune": "Go on training an existing network.",
}

HELP = """Prove a neural network robust, or find the counterexample.

\b
Examples:
  mipverify verify net.onnx property.vnnlib
  mipverify verify net.onnx --data mnist_test.npz --index 7 --eps 0.1
  mipverify inspect net.onnx
  mipverify report net.onnx --data mnist_test.npz --eps 0.1 --out run
  mipverify distortion net.onnx --data mnist_test.npz --index 7 --norm l2

\b
Exit codes:
  0   holds, or the command did its work
  2   bad usage or bad input
  3   undecided within the limits
  4   internal failure
  10  violated


`mipverify check` ends with those of the checker: 0 verified, 1 rejected, 2 bad input.
"""


# Function `name` of module `mipverify.cli.name`; these modules import nothing heavy.
PROGRAM = Program(
    "mipverify",
    HELP,
    COMMANDS,
    lambda name: getattr(import_module(f"mipverify.cli.{name}"), name),
    starting=frozenset({"verify"}),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code. Prints one line on stderr for every failure."""
    return run(arguments, PROGRAM)


def run(arguments: list[str] | None, program: Program) -> int:
    """The same for another program."""
    if arguments is None:
        garbage.put_off()
        return _ended(run(sys.argv[1:], program))
    open_streams()
    try:
        if arguments == ["--version"]:  # answered before anything is imported
            say(f"{program.name} {__version__}")
            return DONE
        with second_interrupt_ends(), quiet_arithmetic():
            code = program.call(arguments)
            return DONE if code is None else int(code)
    except InputError as error:
        return _fail(BAD_INPUT, str(error))
    except MipverifyError as error:  # a full disk, a lost cluster: not a fault of this program, and one line says it
        return _fail(INTERNAL, str(error))
    except KeyboardInterrupt:
        return _fail(UNDECIDED, "interrupted")
    except (Exception, SystemExit) as error:  # every failure has its exit code, and Python's own says nothing
        if isinstance(error, SystemExit) and COMPLETION in os.environ:
            raise  # how the parser ends once it has answered the shell
        if (not arguments or {"--help", "-h"} & set(arguments)) and reader_is_gone(error):  # the parser prints help
            silence_stdout()
            return DONE
        # The parser's usage errors have no common class that typer promises to keep; all of them format themselves.
        if hasattr(error, "format_message"):
            return _fail(BAD_INPUT, error.format_message())
        if "--verbose" in arguments or "-v" in arguments:
            import traceback

            traceback.print_exc(file=sys.stderr)
        return _fail(INTERNAL, f"internal failure: {type(error).__name__}: {error}")


def _ended(code: int) -> int:
    """The exit code, for a process that may end the usual way: work that was left behind could not be waited for."""
    guard = sys.modules.get("mipverify.parallel.guard")
    if guard is not None and guard.anything_left_behind():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    garbage.end()
    return code


def _fail(code: int, message: str) -> int:
    tell("mipverify: error: " + printable(" ".join(message.split())))
    return code
