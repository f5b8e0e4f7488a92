"""The command `benchmark`: all instances of a place, and other tools' results beside ours."""

from __future__ import annotations

import json as json_module
import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

from mipverify.cli import options as opt
from mipverify.cli.console import red, stdout_for_results_only, table
from mipverify.cli.declare import argument, option
from mipverify.cli.exits import DONE, INTERNAL
from mipverify.cli.streams import say, tell
from mipverify.errors import InputError
from mipverify.parallel.threads import use_one_thread

if TYPE_CHECKING:
    from mipverify.benchmark.columns import Outcome
    from mipverify.benchmark.run import BenchmarkResult

Place = Annotated[
    str,
    argument(metavar="PLACE", help="An instances.csv, or a folder of benchmarks.", show_default=False),
]
Out = Annotated[
    str | None, option(metavar="DIR", help="Directory of the run; the same command goes on where it stopped.")
]
Cap = Annotated[float | None, option(metavar="SECONDS", help="No instance gets more, whatever its limit is.")]
Match = Annotated[
    str | None, option(metavar="REGEX", help="Only instances whose benchmark, network and property match.")
]
Every = Annotated[int, option(metavar="N", help="Only every N-th of them.")]
Against = Annotated[
    list[str] | None,
    option(metavar="FILE", help="results.csv of another tool, or a folder of them; may be given several times."),
]
Truth = Annotated[str | None, option(metavar="FILE", help="Known verdicts: CSV with onnx, vnnlib, verdict.")]
Workers = Annotated[int, option(metavar="N", help="Instances that run side by side; they share the cores.")]
Cluster = Annotated[
    str | None, option(metavar="ADDRESS", help="Run on the Dask scheduler at tcp://…, or on a new one: local.")
]


def benchmark(
    place: Place,
    out: Out = None,
    cap: Cap = None,
    match: Match = None,
    every: Every = 1,
    against: Against = None,
    truth: Truth = None,
    workers: Workers = 1,
    solver: opt.Solver = "auto",
    cluster: Cluster = None,
    seed: opt.Seed = 0,
    memory: opt.Memory = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Run every instance of a benchmark of VNN-COMP in a process of its own, under its time limit.

    \b
    Examples:
      mipverify benchmark vnncomp2025_benchmarks --out run --cap 20
      mipverify benchmark acasxu/instances.csv --out run --match prop_3 --every 5
      mipverify benchmark vnncomp2025_benchmarks --out run --against vnncomp2025_results --truth known.csv

    Writes results.sqlite, results.csv in the competition's form, outcomes.csv, summary.json, counterexamples and
    benchmark.html into DIR. Ends with 0 when all instances were run, and with 4 if one of our answers is wrong.
    """
    use_one_thread()  # before anything loads numpy
    if out is None:
        raise InputError("benchmark needs --out DIR")
    if cap is not None and not 0 < cap < math.inf:
        raise InputError(f"--cap must be a positive number of seconds, not {cap:g}")
    opt.check_limits(1.0, workers, seed)
    opt.parse_memory(memory)
    opt.check_solver(solver)

    from mipverify.benchmark.run import BenchmarkLimits, run_benchmark

    limits = BenchmarkLimits(cap, workers, solver, seed, memory, cluster)
    with stdout_for_results_only() if json else nullcontext():
        try:
            result = run_benchmark(
                place,
                out=out,
                limits=limits,
                match=match,
                every=every,
                against=against or (),
                truth=truth,
                progress=None if quiet else _told,
            )
        except KeyboardInterrupt:
            tell(f"mipverify: what was finished is in {out}; the same command continues")
            raise
    ours = result.summary["standings"]["all"]["mipverify"]
    if json:
        say(json_module.dumps(result.summary, allow_nan=False))
    elif quiet:
        say(f"{ours['solved']} of {ours['instances']}")
    else:
        say(describe(result))
    if ours["wrong"]:
        tell(red(f"mipverify: {ours['wrong']} of our answers are wrong: {_page(result)} shows which"))
        return INTERNAL
    return DONE


def describe(result: BenchmarkResult) -> str:
    """The end of a run for people."""
    rows = []
    for name, tools in result.summary["standings"].items():
        if name == "all" and len(result.scores.benchmarks) == 1:
            continue
        for tool, of in tools.items():
            counts = (of[key] for key in ("instances", "solved", "holds", "violated", "timeout", "wrong", "score"))
            rows.append((name, tool, *map(str, counts), f"{of['par2']:.2f}"))
    rows.sort(key=lambda row: row[0] == "all")
    header = ("benchmark", "tool", "instances", "solved", "holds", "violated", "timeout", "wrong", "score", "PAR-2")
    lines = [table(header, rows, left=2), ""]
    for one in result.scores.contradictions:
        said = ", ".join(f"{tool} {a.verdict}" for tool, a in one.answers.items() if a.verdict != "unknown")
        known = f", known {one.truth}" if one.truth else ""
        replay = f"; our counterexample: {one.outcome.replay}" if one.outcome.replay else ""
        lines.append(f"contradiction  {one.outcome.onnx} {one.outcome.vnnlib}: {said}{known}{replay}")
    return "\n".join([*lines, f"page  {_page(result)}"])


def _page(result: BenchmarkResult) -> str:
    from mipverify.benchmark.run import PAGE

    return str(result.directory / PAGE)


def _told(done: int, total: int, outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        note = f"  {outcome.reason}" if outcome.verdict in ("error", "unknown") else ""
        tell(
            f"{done}/{total}  {outcome.verdict:8}  {outcome.seconds:7.2f} s  "
            f"{outcome.benchmark}  {outcome.onnx}  {outcome.vnnlib}{note}"
        )
