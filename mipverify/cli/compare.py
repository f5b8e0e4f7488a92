"""The command `compare`: how far two networks are apart around one image, or around all of a data set."""

from __future__ import annotations

import json as json_module
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

from mipverify import __version__
from mipverify.cli import options as opt
from mipverify.cli.console import green, red, stdout_for_results_only, table, yellow
from mipverify.cli.counterexample import counterexample
from mipverify.cli.declare import argument, option
from mipverify.cli.exits import DONE, UNDECIDED, VIOLATED
from mipverify.cli.outputs import check_outputs, data_files, write
from mipverify.cli.streams import say
from mipverify.errors import InputError
from mipverify.parallel.threads import use_one_thread

if TYPE_CHECKING:
    from mipverify.engine.difference import WorstDifference
    from mipverify.engine.verdict import Verdict, Witness
    from mipverify.report.comparisons import Comparisons
    from mipverify.specification.preprocessing import Preprocessing

Second = Annotated[str, argument(metavar="NETWORK2", help="The network that it is compared with.", show_default=False)]
Within = Annotated[
    str | None, option(metavar="D", help="Ask whether no output differs by more than this, read exactly.")
]
SameClass = Annotated[bool, option("--same-class", help="Ask whether both name the same class everywhere.")]
Gap = Annotated[float, option(metavar="G", help="Relative gap between the bounds at which to stop.")]
Samples = Annotated[str | None, option(metavar="BEGIN:END", help="Only these samples, END excluded.")]
Out = Annotated[
    str | None, option(metavar="DIR", help="Directory of a run over samples; the same command continues it.")
]
CODES = {"holds": DONE, "optimal": DONE, "violated": VIOLATED, "unknown": UNDECIDED, "bounded": UNDECIDED}


def compare(
    network: opt.Network,
    other: Second,
    data: opt.Data = None,
    index: opt.Index = None,
    eps: opt.Eps = None,
    within: Within = None,
    same_class: SameClass = False,
    norm: opt.Norm = "linf",
    domain: opt.Domain = "0,1",
    scale: opt.Scale = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    layout: opt.Layout = None,
    gap: Gap = 1e-2,
    timeout: opt.Timeout = 300.0,
    samples: Samples = None,
    out: Out = None,
    workers: opt.Workers = 1,
    solver: opt.Solver = "auto",
    seed: opt.Seed = 0,
    witness: Annotated[
        str | None, option(metavar="FILE", help="Write the worst input here, in VNN-COMP's form.")
    ] = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Find how far two networks are apart within a radius of images, or prove that they are not.

    \b
    Examples:
      mipverify compare net.onnx pruned.onnx --data mnist_test.npz --index 7 --eps 0.1
      mipverify compare net.onnx pruned.onnx --data mnist_test.npz --index 7 --eps 0.1 --within 0.2
      mipverify compare net.onnx pruned.onnx --data mnist_test.npz --eps 0.1 --same-class --samples 0:20 --out apart

    Without --within and --same-class: the largest difference of an output, with proven bounds from both sides. A tie is
    no common class. Ends with 0 if it holds or the bounds met, 10 if violated, 3 if undecided; of many samples, with 10
    if any is violated.
    """
    use_one_thread()  # before anything loads numpy
    _check(data, index, eps, within, same_class, samples, out, witness)
    assert data is not None
    assert eps is not None
    opt.check_limits(timeout, workers, seed)
    opt.check_solver(solver)
    check_outputs({"--witness": witness}, [network, other, *data_files(data)])
    given = opt.parse_preprocessing(domain, scale, mean, std, layout)
    asked: dict[str, Any] = {"eps": eps, "norm": norm, "within": within, "same_class": same_class, "gap": gap}
    limits: dict[str, Any] = {"timeout": timeout, "solver": solver, "seed": seed}
    if index is None:
        return _many(
            (network, other), data, given, samples, out, {**asked, **limits}, workers=workers, json=json, quiet=quiet
        )
    with stdout_for_results_only() if json else nullcontext():
        from mipverify.cli.progress import Progress
        from mipverify.engine import difference
        from mipverify.network import load
        from mipverify.report.files import inputs_of
        from mipverify.specification import load_dataset
        from mipverify.specification.perturbation import Perturbation

        both = load(network), load(other)
        check_outputs({"--witness": witness}, [path for each in both for path in inputs_of(each)])
        dataset = load_dataset(data, given).fit_to(both[0].input_shape)
        around = Perturbation.around(
            dataset.image(index), norm=norm, domain=given.domain, mean=dataset.mean, std=dataset.std
        )
        with Progress(hidden=quiet) as progress:
            found = difference.compare(
                *both, around, eps, within, same_class, gap, workers=workers, progress=progress, **limits
            )
    word = _word(found)
    if json:
        about = {"path": data, "sha256": dataset.sha256, "index": index}
        record = {
            **found.to_json(),
            "network": [{"path": each.path, "sha256": each.sha256} for each in both],
            "property": {**about, **asked, **dataset.record()},
            "version": __version__,
        }
        say(json_module.dumps(record, allow_nan=False))
    elif quiet:
        say(f"{found.upper:.9g}" if isinstance(found, difference.WorstDifference) else word)
    else:
        say(describe(found, dataset.described(), verbose=verbose))
    if witness is not None and found.witness is not None:
        write(witness, counterexample(found.witness))
    return CODES[word]


def _check(
    data: str | None,
    index: int | None,
    eps: str | None,
    within: str | None,
    same_class: bool,
    samples: str | None,
    out: str | None,
    witness: str | None,
) -> None:
    """Refuse combinations that state no question, or two."""
    from mipverify.specification.exact import exact_number

    if data is None or eps is None:
        raise InputError(f"compare needs {'--data FILE' if data is None else '--eps E'}")
    if exact_number(eps, "--eps") < 0:
        raise InputError(f"--eps must be a number that is not negative, not {eps!r}")
    if within is not None and same_class:
        raise InputError("--within and --same-class are two questions: ask one")
    if within is not None and exact_number(within, "--within") < 0:
        raise InputError(f"--within must be a number that is not negative, not {within!r}")
    if index is not None and (samples is not None or out is not None):
        raise InputError("--index is for one image, --samples and --out are for many")
    if index is None and witness is not None:
        raise InputError("--witness is for one image, with --index")


def _word(found: WorstDifference | Verdict) -> str:
    """How a question ended."""
    from mipverify.engine.difference import WorstDifference

    return found.status if isinstance(found, WorstDifference) else found.verdict


def describe(found: WorstDifference | Verdict, preprocessing: str, *, verbose: bool) -> str:
    """The answer for people."""
    from mipverify.engine.difference import WorstDifference

    word = _word(found)
    color = {"violated": red, "unknown": yellow, "bounded": yellow}.get(word, green)
    lines = [f"{color(word)}  ({found.seconds:.2f} s)"]
    if isinstance(found, WorstDifference):
        lines.append(f"  difference  {found.lower:.9g} to {found.upper:.9g}")
    if found.reason:
        lines.append(f"  reason      {found.reason}")
    if found.witness is not None:
        lines += _outputs(found.witness)
    if found.trusted:
        lines.append(f"  trusts      {', '.join(found.trusted)}")
    lines.append(f"  data        {preprocessing}")
    if verbose:
        rows = [(key, str(value)) for key, value in found.statistics.items()]
        lines += ["", table(("statistic", "value"), rows, left=2)]
    return "\n".join(lines)


def _outputs(witness: Witness) -> list[str]:
    """What both networks make of the worst input."""
    import numpy as np

    first, second = np.split(witness.output.reshape(-1), 2)
    k = int(np.abs(first - second).argmax())
    lines = [f"  output      {k} is {first[k]:.6g} in the first network, {second[k]:.6g} in the second"]
    if len(first) > 1:
        lines.append(f"  class       {first.argmax()} in the first network, {second.argmax()} in the second")
    return lines


def _many(
    networks: tuple[str, str],
    data: str,
    given: Preprocessing,
    samples: str | None,
    out: str | None,
    asked: dict[str, Any],
    *,
    workers: int,
    json: bool,
    quiet: bool,
) -> int:
    from mipverify.report.comparisons import run_comparisons

    with stdout_for_results_only() if json else nullcontext():
        from mipverify.cli.progress import Progress

        with Progress(hidden=quiet) as progress:
            found = run_comparisons(
                networks, data, samples, out=out, asked=asked, preprocessing=given, workers=workers, progress=progress
            )
    if json:
        say(json_module.dumps(found.summary, allow_nan=False))
    elif quiet:
        say(found.summary["verdict"])
    else:
        say(describe_many(found))
    return CODES[found.summary["verdict"]]


def describe_many(found: Comparisons) -> str:
    """A run for people."""
    summary = found.summary
    rows = [(word, f"{summary[word]:,}") for word in CODES if word in summary]
    lines = [table(("verdict", "samples"), rows), ""]
    worst = summary.get("difference")
    if worst is not None:
        lines.append(f"difference  {worst['lower']:.6g} to {worst['upper']:.6g}, sample {worst['index']}")
    lines.append(f"time        median {summary['median_seconds']:.2f} s a sample")
    lines.append(f"data        {found.preprocessing}")
    if found.page is not None:
        lines.append(f"page        {found.page}")
    return "\n".join(lines)
