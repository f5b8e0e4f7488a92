"""The command `prune`: set small weights to zero, and ReLUs that hardly ever switch to a constant or the identity."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from mipverify.cli import options as opt
from mipverify.cli import training
from mipverify.cli.console import stdout_for_results_only
from mipverify.cli.declare import argument, option
from mipverify.cli.exits import DONE
from mipverify.errors import Complaints, InputError

Run = Annotated[str, argument(metavar="RUN", help="Directory of a run, or its network.pt.", show_default=False)]
Weights = Annotated[float | None, option(metavar="T", help="Weights with |w| < T become zero.")]
Relus = Annotated[
    float | None,
    option(
        metavar="F",
        help="ReLUs active on less than the fraction F of the attacked training images become zero, "
        "those active on more than 1 - F linear.",
    ),
]


def prune(
    run: Run,
    out: training.Out = None,
    weights: Weights = None,
    relus: Relus = None,
    data: training.Data = None,
    test: training.Test = None,
    eps: training.Eps = None,
    images: training.Images_ = None,
    threads: training.Threads = None,
    evaluate: training.Evaluate = False,
    samples: training.Samples = training.SOME,
    timeout: training.Timeout = training.SECONDS,
    workers: training.Workers = 0,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Remove small weights, and ReLUs that hardly ever switch.

    \b
    Examples:
      mipverify prune run --weights 0.001 --out pruned
      mipverify prune run --relus 0.1 --data mnist_train.npz --eps 0.1 --out pruned
      mipverify prune run --weights 0.001 --out pruned --evaluate --test mnist_test.npz --eps 0.1

    The network changes: with --evaluate the table shows it before and after.
    """
    complaints = Complaints()
    with complaints:
        training.needed({"--out DIR": out})
    with complaints:
        if weights is None and relus is None:
            raise InputError("nothing to prune: give --weights T or --relus F")
    asked = {"--data FILE": data} if relus is not None else {}
    asked |= {"--test FILE": test} if evaluate else {}
    with complaints:
        training.needed(asked | ({"--eps E": eps} if asked else {}))
    with complaints:
        opt.check_limits(timeout, workers or 1)
    radius = training.radius(complaints, eps) or 0.0
    complaints.end()
    with training.torch_is_there():
        from mipverify.models.training import read_images
        from mipverify.models.training.pruned import prune_run

        training.set_threads(threads)
        with stdout_for_results_only() if json else nullcontext():
            counted = None if relus is None else read_images(str(data)).first(images)
            shown = read_images(str(test)) if evaluate else None
            record = prune_run(run, Path(str(out)), weights=weights, relus=relus, images=counted, eps=radius)
            figures = {}
            if shown is not None:
                runs = {"before": run, "after": str(out)}
                figures = training.evaluation(
                    runs,
                    shown,
                    radius,
                    training.fitting(samples, len(shown)),
                    timeout=timeout,
                    workers=workers,
                    quiet=quiet,
                )
    training.conclude(record, str(out), figures, json=json, quiet=quiet)
    return DONE
