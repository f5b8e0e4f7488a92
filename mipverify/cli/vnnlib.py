"""The program `mipverify-vnnlib`: the command line that the VNN-LIB standard asks of solvers, chapter 5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from mipverify.cli import options as opt
from mipverify.cli.declare import argument, option
from mipverify.cli.exits import DONE
from mipverify.cli.program import Program
from mipverify.cli.streams import say
from mipverify.errors import InputError
from mipverify.parallel import cores
from mipverify.parallel.threads import use_one_thread

HELP = """Decide queries of VNN-LIB 1 and 2, on the command line that the standard describes.

\b
Examples:
  mipverify-vnnlib verify query.vnnlib --network N=net.onnx --timeout 60
  mipverify-vnnlib verify query.vnnlib --network f=a.onnx --network g=b.onnx
  mipverify-vnnlib supports --onnx-operators

\b
Prints sat with an assignment, unsat or unknown. Exit codes:
  0  an answer was printed
  2  bad usage, bad input, or what is not supported; one line on stderr names it
  4  internal failure
"""

THEORIES = {
    "multiple_network_theories": ("SNET", "MNET", "MENET", "MINET"),
    "hidden_node_theories": ("NH", "H"),
    "multiple_input_output_theories": ("SIO", "MIO"),
    "arithmetic_complexity_theories": ("BND", "OUTC", "LIN"),
}
VERSIONS = ("1.0", "2.0")


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its exit code."""
    from mipverify.cli.main import run

    commands = {"verify": "Decide a query.", "supports": "Tell what is supported."}
    functions: dict[str, Callable[..., int]] = {"verify": verify, "supports": supports}
    starting = frozenset({"verify"})
    program = Program("mipverify-vnnlib", HELP, commands, functions.__getitem__, starting, standard=True)
    return run(arguments, program)


def verify(
    query: Annotated[str, argument(metavar="QUERY", help="VNN-LIB file (.vnnlib or .vnnlib.gz).")],
    network: Annotated[
        list[str] | None, option(metavar="NAME=FILE", help="The ONNX file of a network of the query.")
    ] = None,
    timeout: opt.Timeout = 300.0,
    workers: Annotated[int | None, option(metavar="N", help="Processes, by default one for each core.")] = None,
    seed: opt.Seed = 0,
) -> int:
    """Print sat and an assignment, unsat, or unknown."""
    use_one_thread()  # before anything loads numpy
    workers = cores() if workers is None else workers
    opt.check_limits(timeout, workers, seed)
    networks = _named(network or [])

    from mipverify.cli.console import stdout_for_results_only
    from mipverify.cli.question import QuestionOptions
    from mipverify.cli.verify import ask, counterexample_of, read_within
    from mipverify.engine.budget import Clock
    from mipverify.engine.verdict import Verdict
    from mipverify.specification import EmptyBoxError

    asked = QuestionOptions(query, None, None, None, "linf", None, None)
    with stdout_for_results_only():
        clock = Clock(timeout)
        try:
            read = read_within(networks, asked, clock)
            verdict = ask(read, clock, workers=workers, seed=seed)
        except EmptyBoxError:  # elsewhere a mistake; here it is an answer
            read, verdict = None, Verdict("holds", clock.elapsed(), "reading")
    word = {"violated": "sat", "holds": "unsat"}.get(verdict.verdict, "unknown")
    say("\n".join([word, *counterexample_of(verdict, read).splitlines()]))
    return DONE


def supports(
    onnx_operators: Annotated[bool, option("--onnx-operators", help="Operators, one a line.")] = False,
    vnnlib_versions: Annotated[bool, option("--vnnlib-versions", help="First and last version.")] = False,
    onnx_opset_versions: Annotated[bool, option("--onnx-opset-versions", help="First and last version.")] = False,
    multiple_network_theories: Annotated[bool, option("--multiple-network-theories")] = False,
    hidden_node_theories: Annotated[bool, option("--hidden-node-theories")] = False,
    multiple_input_output_theories: Annotated[bool, option("--multiple-input-output-theories")] = False,
    arithmetic_complexity_theories: Annotated[bool, option("--arithmetic-complexity-theories")] = False,
    serialise_assignments: Annotated[bool, option("--serialise-assignments")] = False,
) -> int:
    """Print what is asked for: exactly one of the options."""
    asked = {name: value for name, value in locals().items() if value}
    if len(asked) != 1:
        raise InputError(f"supports takes exactly one option, not {len(asked)}")
    (name,) = asked
    if name in THEORIES:
        lines = THEORIES[name]
    elif name == "vnnlib_versions":
        lines = VERSIONS
    elif name == "serialise_assignments":
        lines = ("false",)
    else:
        from mipverify.network.supported import operators, opsets

        lines = operators() if name == "onnx_operators" else tuple(map(str, opsets()))
    say("\n".join(lines))
    return DONE


def _named(pairs: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (equals and name and path):
            raise InputError(f"--network must be NAME=FILE, not {pair!r}")
        if name in found:
            raise InputError(f"--network {pair}: there is a file for {name} already")
        found[name] = path
    if not found:
        raise InputError("verify needs --network NAME=FILE for each network of the query")
    return found
