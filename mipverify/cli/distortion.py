"""The command `distortion`: the distance to the closest adversarial input, of one image or of many."""

from __future__ import annotations

import json as json_module
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

from mipverify import __version__
from mipverify.cli import options as opt
from mipverify.cli.console import green, stdout_for_results_only, table, yellow
from mipverify.cli.counterexample import counterexample, wrong_class
from mipverify.cli.declare import option
from mipverify.cli.exits import DONE, UNDECIDED
from mipverify.cli.outputs import check_outputs, data_files, remove_stale, write, write_proof
from mipverify.cli.streams import say
from mipverify.errors import InputError
from mipverify.parallel.threads import use_one_thread

if TYPE_CHECKING:
    from mipverify.engine.distortion import Distortion
    from mipverify.report.distances import Distances
    from mipverify.specification.preprocessing import Preprocessing

Gap = Annotated[
    float | None,
    option(
        metavar="G",
        help="Relative gap between the bounds at which to stop. [default: 1e-4, with --threat 1e-2]",
        show_default=False,
    ),
]
Farthest = Annotated[str | None, option(metavar="D", help="Look no further than this distance, such as 0.1 or 8/255.")]
Margin = Annotated[str, option(metavar="M", help="By how much a wrong class must exceed the right one.")]
Samples = Annotated[str | None, option(metavar="BEGIN:END", help="Many samples, END excluded; needs --out.")]
Out = Annotated[
    str | None, option(metavar="DIR", help="Directory of a run over samples; the same command continues it.")
]


def distortion(
    network: opt.Network,
    data: opt.Data = None,
    index: opt.Index = None,
    norm: opt.Norm = "linf",
    domain: opt.Domain = "0,1",
    scale: opt.Scale = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    layout: opt.Layout = None,
    label: opt.Label = None,
    targets: opt.Targets = None,
    margin: Margin = "0",
    gap: Gap = None,
    max_distance: Farthest = None,
    timeout: opt.Timeout = 300.0,
    samples: Samples = None,
    out: Out = None,
    workers: opt.Workers = 1,
    solver: opt.Solver = "auto",
    seed: opt.Seed = 0,
    arithmetic: opt.Arithmetic = "real",
    threat: opt.Threat = None,
    witness: Annotated[
        str | None, option(metavar="FILE", help="Write the closest input here, in VNN-COMP's form.")
    ] = None,
    proof: Annotated[
        str | None,
        option(metavar="FILE", help="Write a proof of the lower bound here, which `mipverify-check` checks by itself."),
    ] = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Find how far the closest input is that the network gets wrong, with proven bounds from both sides.

    \b
    Examples:
      mipverify distortion net.onnx --data mnist_test.npz --index 8
      mipverify distortion net.onnx --data mnist_test.npz --index 8 --norm l2 --targets 3,5 --gap 1e-3
      mipverify distortion net.onnx --data mnist_test.npz --index 8 --proof closest.proof
      mipverify distortion net.onnx --data mnist_test.npz --samples 0:50 --norm l1 --out distances
      mipverify distortion net.onnx --data mnist_test.npz --index 8 --threat rotation:30

    A tie counts as wrong. With --threat the radius of a patch or of masked pixels is looked for, else the smallest
    share of the threat: 1 is all of it. Ends with 0 if the bounds met (or nothing within --max-distance is wrong), 3 if
    not in time.
    """
    use_one_thread()  # before anything loads numpy
    from mipverify.specification.exact import exact_number

    if data is None:
        raise InputError("distortion needs --data FILE")
    if (index is None) == (samples is None):
        raise InputError("distortion needs --index I, or --samples BEGIN:END with --out DIR")
    if (samples is None) != (out is None):
        raise InputError("--samples needs --out DIR, and the other way round")
    opt.check_limits(timeout, workers, seed)
    opt.check_solver(solver)
    opt.check_arithmetic(arithmetic)
    outputs = {"--witness": witness, "--proof": proof}
    check_outputs(outputs, [network, *data_files(data)])
    given = opt.parse_preprocessing(domain, scale, mean, std, layout)
    asked: dict[str, Any] = {
        "norm": norm,
        "targets": opt.parse_targets(targets),
        "margin": margin,
        "gap": gap if gap is not None else 1e-2 if threat is not None else 1e-4,
        "max_distance": opt.parse_positive("--max-distance", max_distance),
        "timeout": timeout,
        "solver": solver,
        "seed": seed,
    }
    if arithmetic != "real":
        asked["arithmetic"] = arithmetic
    threatened = opt.parse_threat(threat)
    if threatened is not None and exact_number(margin, "--margin") != 0:
        raise InputError("--margin cannot be combined with --threat")
    if proof is not None:
        opt.check_provable(threatened)
    if samples is not None:
        assert out is not None
        if label is not None or witness is not None or proof is not None:
            raise InputError("--label, --witness and --proof are for one image, not for --samples")
        asked |= {} if threatened is None else {"threat": threatened}
        return _many(network, data, given, samples, out, asked, workers=workers, json=json, quiet=quiet)
    assert index is not None
    with stdout_for_results_only() if json else nullcontext():
        from mipverify.cli.progress import Progress
        from mipverify.engine.distortion import minimum_distortion
        from mipverify.engine.threats.distance import OPTIONS, distance_of_threat
        from mipverify.engine.threats.sample import Sample
        from mipverify.network import load
        from mipverify.report.files import inputs_of
        from mipverify.specification import load_dataset

        loaded = load(network)
        check_outputs(outputs, inputs_of(loaded))  # weights in other files, too
        dataset = load_dataset(data, given).fit_to(loaded.input_shape)
        image = dataset.image(index)
        right = dataset.label(index) if label is None else label
        remove_stale(outputs.values())
        with Progress(hidden=quiet) as progress:
            if threatened is not None:
                sample = Sample.of(dataset, index, right, None, norm, asked["targets"])
                how = {name: asked[name] for name in OPTIONS if name in asked}
                how |= {"workers": workers, "progress": progress, "proof": proof is not None}
                found = distance_of_threat(loaded, threatened, sample, **how)
            else:
                found = minimum_distortion(
                    loaded,
                    image,
                    right,
                    domain=given.domain,
                    mean=dataset.mean,
                    std=dataset.std,
                    workers=workers,
                    progress=progress,
                    proof=proof is not None,
                    **asked,
                )
    written, unwritten = write_proof(proof, found.proof)
    if json:
        about = {"path": data, "sha256": dataset.sha256, "index": index, "label": right}
        kept = {key: value for key, value in asked.items() if key not in ("timeout", "solver", "seed")}
        kept |= {} if threatened is None else {"threat": threatened.text}
        record = {
            **found.to_json(),
            "proof": written,
            "network": {"path": loaded.path, "sha256": loaded.sha256},
            "property": {**about, **kept, **dataset.record()},
            "version": __version__,
        }
        say(json_module.dumps(record, allow_nan=False))
    elif quiet:
        say("none" if found.upper is None else f"{found.upper:.9g}")
    else:
        say(describe(found, right, dataset.described(), verbose=verbose, proof=written))
    if witness is not None and found.witness is not None:
        write(witness, counterexample(found.witness))
    if unwritten is not None:
        raise unwritten
    return UNDECIDED if found.status == "bounded" else DONE


def describe(found: Distortion, label: int, preprocessing: str, *, verbose: bool, proof: str | None = None) -> str:
    """The answer for people. proof: where one was written."""
    from mipverify.engine.verdict import ABOUT

    color = yellow if found.status == "bounded" else green
    lines = [f"{color(found.status)}  ({found.norm}, {found.seconds:.2f} s)"]
    upper = "no limit found" if found.upper is None else f"{found.upper:.9g}"
    if found.status == "none":
        lines.append(f"  nothing within {found.lower:.9g} is classified otherwise")
    else:
        lines.append(f"  distance  {found.lower:.9g} to {upper}")
    if found.status == "bounded":
        lines.append(f"  reason    {found.reason}")
    worst = found.statistics.get("worst")
    if worst:
        lines.append("  closest   " + ", ".join(f"{name} {value:.5g}" for name, value in worst.items()))
    if found.witness is not None:
        lines.append(f"  output    {wrong_class(found.witness.output, label)}")
    lines.append(f"  about     {ABOUT[found.arithmetic]}, from below")
    if found.trusted:
        lines.append(f"  trusts    {', '.join(found.trusted)}")
    if proof is not None:
        lines.append(f"  proof     {proof}, from below")
    lines.append(f"  data      {preprocessing}")
    if verbose:
        rows = [(key, str(value)) for key, value in found.statistics.items()]
        lines += ["", table(("statistic", "value"), rows, left=2)]
    return "\n".join(lines)


def _many(
    network: str,
    data: str,
    given: Preprocessing,
    samples: str,
    out: str,
    asked: dict[str, Any],
    *,
    workers: int,
    json: bool,
    quiet: bool,
) -> int:
    from mipverify.report.distances import run_distances

    with stdout_for_results_only() if json else nullcontext():
        from mipverify.cli.progress import Progress

        with Progress(hidden=quiet) as progress:
            found = run_distances(
                network,
                data,
                samples,
                out=out,
                asked=asked,
                preprocessing=given,
                workers=workers,
                progress=progress,
            )
    if json:
        say(json_module.dumps(found.summary, allow_nan=False))
    elif not quiet:
        say(describe_many(found))
    return DONE


def describe_many(found: Distances) -> str:
    """A run for people."""
    summary = found.summary
    rows = [(status, f"{summary[status]:,}") for status in ("optimal", "bounded", "none")]
    lines = [table(("status", "samples"), rows), ""]
    if summary["distance"]["median"] is not None:
        of = summary["distance"]
        lines.append(f"distance  median {of['median']:.6g}, smallest {of['smallest']:.6g}, largest {of['largest']:.6g}")
    lines.append(f"time      median {summary['median_seconds']:.2f} s a sample")
    lines.append(f"data      {found.preprocessing}")
    lines.append(f"table     {found.csv}")
    return "\n".join(lines)
