"""The command `report`: exact adversarial accuracy of a test set, and two such runs side by side."""

from __future__ import annotations

import json as json_module
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mipverify.cli import options as opt
from mipverify.cli.console import green, red, stdout_for_results_only, table, yellow
from mipverify.cli.declare import argument, option
from mipverify.cli.exits import DONE, INTERNAL
from mipverify.cli.streams import say, tell
from mipverify.errors import InputError
from mipverify.parallel.threads import use_one_thread

if TYPE_CHECKING:
    from mipverify.report.compare import Comparison
    from mipverify.report.curve import AccuracyCurve
    from mipverify.report.run import AccuracyResult
    from mipverify.specification.preprocessing import Preprocessing

Out = Annotated[
    str | None, option(metavar="DIR", help="Directory of the run; the same command goes on where it stopped.")
]
Samples = Annotated[str | None, option(metavar="BEGIN:END", help="Only these samples, END excluded.")]
Workers = Annotated[
    int | None, option(metavar="N", help="Local processes, by default one for each core; 0 uses this process.")
]
Cluster = Annotated[
    str | None, option(metavar="ADDRESS", help="Run on the Dask scheduler at tcp://…, or on a new one: local.")
]
Retry = Annotated[str | None, option(metavar="unknown", help="Run undecided samples again.")]
Proofs = Annotated[
    bool, option("--proofs", help="Keep a proof of each sample that holds in DIR/proofs; takes no solver's word.")
]
Compare = Annotated[
    tuple[str, str] | None, option(metavar="DIR1 DIR2", help="Put two finished runs side by side instead.")
]

Radii = Annotated[
    str | None,
    option(metavar="E,…", help="Radius of the perturbation, read exactly: 0.1 or 8/255. Several make a curve."),
]
ClassNames = Annotated[
    str | None, option(metavar="A,B,…", help="What the classes are called on the page, from class 0.")
]


def report(
    network: Annotated[
        str | None, argument(metavar="NETWORK", help="ONNX file (.onnx or .onnx.gz).", show_default=False)
    ] = None,
    data: opt.Data = None,
    eps: Radii = None,
    norm: opt.Norm = "linf",
    threat: opt.Threat = None,
    domain: opt.Domain = "0,1",
    scale: opt.Scale = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    layout: opt.Layout = None,
    samples: Samples = None,
    out: Out = None,
    timeout: opt.Timeout = 120.0,
    workers: Workers = None,
    solver: opt.Solver = "auto",
    cluster: Cluster = None,
    retry: Retry = None,
    proofs: Proofs = False,
    class_names: ClassNames = None,
    seed: opt.Seed = 0,
    arithmetic: opt.Arithmetic = "real",
    compare: Compare = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Decide for every image of a test set whether a perturbation changes its class.

    \b
    Examples:
      mipverify report net.onnx --data mnist_test.npz --eps 0.1 --out run
      mipverify report net.onnx --data mnist_test.npz --eps 0.1 --out run --retry unknown --timeout 3600
      mipverify report net.onnx --data mnist_test.npz --eps 0.1 --out run --cluster tcp://scheduler:8786
      mipverify report net.onnx --data mnist_test.npz --eps 0.02,0.05,0.1,0.2 --out curve
      mipverify report net.onnx --data mnist_test.npz --threat rotation:5,translation:1 --out turned
      mipverify report --compare run1 run2

    Writes results.sqlite, samples.csv, summary.json and report.html into DIR, and curve.csv for several radii. Ends
    with 0 when all samples were run, also if some of them stayed undecided.
    """
    use_one_thread()  # before anything loads numpy
    if compare is not None:
        _refuse_with_compare({"NETWORK": network, "--data": data, "--eps": eps, "--threat": threat})
        return _compare(compare, out, json=json, quiet=quiet)
    given = opt.parse_preprocessing(domain, scale, mean, std, layout)
    return _run(
        network,
        data,
        eps,
        norm,
        threat,
        given,
        samples,
        out,
        timeout,
        workers,
        solver,
        cluster,
        retry,
        proofs,
        class_names,
        seed,
        arithmetic,
        json,
        quiet,
        verbose,
    )


def _run(
    network: str | None,
    data: str | None,
    eps: str | None,
    norm: str,
    threat: str | None,
    preprocessing: Preprocessing,
    samples: str | None,
    out: str | None,
    timeout: float,
    workers: int | None,
    solver: str,
    cluster: str | None,
    retry: str | None,
    proofs: bool,
    class_names: str | None,
    seed: int,
    arithmetic: str,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    needed = {"NETWORK": network, "--data FILE": data, "--eps E": eps or threat, "--out DIR": out}
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise InputError(f"report needs {' and '.join(missing)}")
    assert network is not None
    assert data is not None
    assert out is not None
    opt.check_limits(timeout, 1 if workers == 0 or workers is None else workers, seed)
    opt.check_solver(solver)
    opt.check_arithmetic(arithmetic)
    if retry not in (None, "unknown"):
        raise InputError(f"--retry can only be unknown, not {retry!r}")

    from mipverify.report.live import Live
    from mipverify.report.run import Limits, run_report

    threatened = opt.parse_threat(threat)
    opt.check_radius(threatened, eps)
    again = retry is not None
    limits = Limits(timeout, workers, solver, seed, cluster, again, proofs=proofs, arithmetic=arithmetic)
    with stdout_for_results_only() if json else nullcontext(), Live(quiet=quiet, verbose=verbose) as live:
        try:
            result = run_report(
                network,
                data,
                eps,
                out=out,
                limits=limits,
                threat=threatened,
                norm=norm,
                samples=samples,
                preprocessing=preprocessing,
                class_names=() if class_names is None else [name.strip() for name in class_names.split(",")],
                progress=live,
            )
        except KeyboardInterrupt:
            tell(f"mipverify: what was finished is in {out}; the same command continues")
            raise
    from mipverify.report.curve import AccuracyCurve

    page, curve = Path(out) / "report.html", isinstance(result, AccuracyCurve)
    if json:
        say(json_module.dumps(result.summary, allow_nan=False))
    elif quiet:
        points = result.summary["radii"] if curve else [result.summary]
        say("\n".join(f"{point['eps']}  {_interval(point)}" if curve else _interval(point) for point in points))
    else:
        say(describe_curve(result, page) if isinstance(result, AccuracyCurve) else describe(result, page))
    return DONE


def describe_curve(curve: AccuracyCurve, page: Path) -> str:
    """The end of a run with several radii for people."""
    from mipverify.engine.verdict import ABOUT
    from mipverify.report.live import duration

    summary, total = curve.summary, curve.summary["samples"] or 1
    rows = [
        (
            of["eps"],
            _interval(of),
            f"{of['holds']:,}",
            f"{of['violated']:,}",
            f"{of['unknown']:,}",
            duration(of["seconds_of_samples"]),
        )
        for of in summary["radii"]
    ]
    return "\n".join(
        [
            table(("radius", "adversarial error", "holds", "violated", "unknown", "time"), rows),
            "",
            f"clean error {summary['clean_error']:.2%}",
            f"{summary['samples']:,} samples in {duration(summary['seconds'])}, "
            f"{1000 * summary['seconds'] / total:.1f} ms a sample",
            f"about   {ABOUT[summary['arithmetic']]}",
            f"data    {curve.preprocessing}",
            f"report  {page}",
        ]
    )


def describe(result: AccuracyResult, page: Path) -> str:
    """The end of a run for people."""
    from mipverify.engine.verdict import ABOUT
    from mipverify.report.live import duration

    summary = result.summary
    total = summary["samples"] or 1
    rows = [
        (verdict, f"{summary[verdict]:,}", f"{summary[verdict] / total:.2%}")
        for verdict in ("misclassified", "violated", "unknown", "holds")
    ]
    stages = [(name, f"{of['samples']:,}", duration(of["seconds"])) for name, of in summary["stages"].items()]
    exact = green("exact") if summary["unknown"] == 0 else yellow("not closed")
    return "\n".join(
        [
            f"adversarial error  {_interval(summary)}  ({exact}; clean error {summary['clean_error']:.2%})",
            "",
            table(("verdict", "samples", "share"), rows),
            "",
            table(("decided by", "samples", "time"), stages),
            "",
            f"{summary['samples']:,} samples in {duration(summary['seconds'])}, "
            f"{1000 * summary['seconds'] / total:.1f} ms a sample",
            f"about   {ABOUT[summary['arithmetic']]}",
            f"data    {result.preprocessing}",
            f"report  {page}",
        ]
    )


def _interval(summary: dict[str, Any]) -> str:
    error = summary["adversarial_error"]
    return f"{error['lower']:.2%}" if summary["unknown"] == 0 else f"{error['lower']:.2%} to {error['upper']:.2%}"


def _refuse_with_compare(given: dict[str, str | None]) -> None:
    for name, value in given.items():
        if value is not None:
            raise InputError(f"{name} cannot be combined with --compare")


def _compare(directories: tuple[str, str], out: str | None, *, json: bool, quiet: bool) -> int:
    from mipverify.report.compare import compare, write_comparison

    found = compare(*directories)
    folder = Path(out or ".")
    page = folder / "compare.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_comparison(page, found)
    except OSError as error:
        raise InputError(f"{page}: cannot be written ({error.strerror})") from None
    if json:
        say(json_module.dumps(comparison_record(found), allow_nan=False))
    elif not quiet:
        say(describe_comparison(found, page))
    if found.contradictions:
        number = len(found.contradictions)
        which = "1 sample" if number == 1 else f"{number:,} samples"
        tell(red(f"mipverify: the runs contradict each other on {which}"))
        return INTERNAL  # one of them is wrong, and that is never the user's fault
    return DONE


def describe_comparison(found: Comparison, page: Path) -> str:
    """Two runs for people."""
    from mipverify.report.live import duration

    one, two = found.first, found.second
    figures = [
        *(
            (verdict, f"{getattr(one.counts, verdict):,}", f"{getattr(two.counts, verdict):,}")
            for verdict in ("misclassified", "violated", "unknown", "holds")
        ),
        ("adversarial error from", f"{one.counts.lower:.2%}", f"{two.counts.lower:.2%}"),
        ("adversarial error to", f"{one.counts.upper:.2%}", f"{two.counts.upper:.2%}"),
        ("time of these samples", duration(one.sample_seconds), duration(two.sample_seconds)),
    ]
    lines = [table((f"{found.common:,} samples in both", one.name, two.name), figures), ""]
    if found.other_question:
        lines.append(f"the runs ask different questions: another {' and another '.join(found.other_question)}")
    if found.differences:
        rows = [
            (str(d.index), d.first.verdict, d.second.verdict, "CONTRADICTION" if d.contradiction else "")
            for d in found.differences[:40]
        ]
        lines.append(table(("index", one.name, two.name, ""), rows, left=4))
        if len(found.differences) > len(rows):
            lines.append(f"and {len(found.differences) - len(rows):,} more")
    else:
        lines.append("no verdict differs")
    return "\n".join([*lines, f"page  {page}"])


def comparison_record(found: Comparison) -> dict[str, Any]:
    """The object that `--compare --json` prints."""
    return {
        "common": found.common,
        "other_question": found.other_question,
        "contradictions": [d.index for d in found.contradictions],
        "differences": [
            {"index": d.index, "first": d.first.verdict, "second": d.second.verdict} for d in found.differences
        ],
    }
