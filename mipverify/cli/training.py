"""What the commands `train`, `prune` and `finetune` share: options, and the table at the end."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mipverify.cli import options as opt
from mipverify.cli.console import table
from mipverify.cli.declare import option
from mipverify.cli.streams import say, tell
from mipverify.errors import Complaints, InputError

if TYPE_CHECKING:
    from mipverify.models.training import Images

Data = Annotated[
    str | None,
    option(
        metavar="FILE", help="Training images: .npz, IDX, CSV, or a folder with one subfolder of images for each class."
    ),
]
Test = Annotated[
    str | None, option(metavar="FILE", help="Test images, likewise; some training images are held out without.")
]
Out = Annotated[str | None, option(metavar="DIR", help="Directory for the network and the record of its making.")]
Eps = Annotated[str | None, option(metavar="E", help="Radius of the l_inf perturbations, such as 0.1 or 8/255.")]
Preset = Annotated[
    str | None,
    option(
        metavar="NAME",
        help="mnist- or cifar10-adversarial, -sparse, -stable, -certified, -certified-wide, -interval, -ibp, "
        "-crown-ibp, -sabr or -mtl-ibp; mnist-normalized.",
    ),
]
Epochs = Annotated[int | None, option(metavar="N", help="Passes over the training images.")]
BatchSize = Annotated[int | None, option(metavar="N", help="Images in one step.")]
LearningRate = Annotated[float | None, option(metavar="R", help="Largest learning rate of the cycle.")]
AttackSteps = Annotated[int | None, option(metavar="N", help="Gradient steps of the attack.")]
Stability = Annotated[float | None, option(metavar="W", help="Weight of the ReLU-stability loss.")]
Sparsity = Annotated[float | None, option(metavar="W", help="Weight of the l_1 norm of the layers.")]
Certified = Annotated[float | None, option(metavar="SHARE", help="Share of the loss of bounded logits, 0 to 1.")]
RadiusFactor = Annotated[float | None, option(metavar="F", help="Train for F times the radius, in attacks and bounds.")]
BoundedShare = Annotated[
    float | None, option(metavar="SHARE", help="Share of each batch for which bounds are computed, 0 to 1.")
]
SmallBox = Annotated[
    float | None,
    option(metavar="SHARE", help="Bound a box of this share of the radius around an attacked point (SABR)."),
]
Statistics = Annotated[
    str | None,
    option(
        metavar="NAME",
        help="What batch normalizations use in bounds while training: a clean pass, or the centers of bounds.",
    ),
]
Average = Annotated[
    float | None,
    option(metavar="DECAY", help="Keep a moving average of the weights, old ones counting DECAY, such as 0.999."),
]
Validation = Annotated[
    int | None,
    option(metavar="N", help="Hold N training images out, and keep the epoch with the best verified accuracy."),
]
Patience = Annotated[
    int | None, option(metavar="N", help="Stop after N epochs at the full radius without a better one.")
]
Bounds = Annotated[
    str | None, option(metavar="NAME", help="Bounds of hidden units: interval, improved_interval or crown.")
]
Seed = Annotated[int | None, option(metavar="N", help="Seed of weights, order and attacks.")]
Images_ = Annotated[int | None, option(metavar="N", help="Train on the first N images only.")]
Resume = Annotated[bool, option("--resume", help="Go on from the last epoch that DIR holds.")]
TensorBoard = Annotated[bool, option("--tensorboard", help="Write logs for TensorBoard into DIR/log.")]
Threads = Annotated[int | None, option(metavar="N", help="Threads of torch; results depend on it in the last bits.")]
Evaluate = Annotated[bool, option("--evaluate", help="Verify --samples of the test images at the end, exactly.")]
Against = Annotated[
    str | None, option(metavar="RUN", help="Directory of another run to put beside it in the evaluation.")
]
SOME = "0:100"  # samples, and SECONDS for each: an evaluation that ends in a minute or two
SECONDS = 1.0
Samples = Annotated[str, option(metavar="BEGIN:END", help="Test images to verify, END excluded.")]
Timeout = Annotated[float, option(metavar="SECONDS", help="Time limit for each image that is verified.")]
Workers = Annotated[int, option(metavar="N", help="Processes that verify; 0 is this one.")]


def needed(options: dict[str, str | None]) -> None:
    """Refuse a command whose required options are missing."""
    missing = [name for name, value in options.items() if value is None]
    if missing:
        raise InputError(f"{' and '.join(missing)} must be given")


def radius(complaints: Complaints, eps: str | None) -> float | None:
    """What --eps says."""
    with complaints:
        return opt.parse_positive("--eps", eps)
    return None


def fitting(samples: str, count: int) -> str:
    """The samples asked for; those of the default, as far as there are so many."""
    return f"0:{min(count, int(SOME.partition(':')[2]))}" if samples == SOME else samples


def set_threads(count: int | None) -> None:
    """Let torch use so many threads."""
    if count is None:
        return
    if count < 1:
        raise InputError(f"--threads must be at least 1, not {count}")
    import torch

    torch.set_num_threads(count)


@contextmanager
def torch_is_there() -> Iterator[None]:
    """Inside, a missing torch is an error of the user's installation."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise InputError("training needs torch: pip install 'mipverify[train]'") from None


def evaluation(
    runs: dict[str, str], test: Images, eps: float, samples: str, *, timeout: float, workers: int, quiet: bool
) -> dict[str, dict[str, Any]]:
    """Figures of the networks in these directories, by name."""
    from mipverify.models.training.evaluate import evaluate
    from mipverify.report.configuration import parse_samples
    from mipverify.report.live import Live

    chosen = parse_samples(samples, len(test))
    figures = {}
    for name, directory in runs.items():
        with Live(quiet=quiet, verbose=False) as live:
            figures[name] = evaluate(
                directory, test, eps, (chosen.start, chosen.stop), timeout=timeout, workers=workers, progress=live
            )
    return figures


def conclude(record: dict[str, Any], out: str, figures: dict[str, dict[str, Any]], *, json: bool, quiet: bool) -> None:
    """Print the end of a command."""
    from mipverify.models.training.evaluate import table_of

    if json:
        say(json_module.dumps(record | ({"evaluation": figures} if figures else {}), allow_nan=False))
        return
    lines = []
    if figures:
        header, *rows = table_of(figures)
        lines.append(table(header, rows))
    if not quiet:
        lines += removed(record)
        lines.append(f"network  {Path(out) / 'network.onnx'}")
    if lines:
        say("\n".join(lines))


def removed(record: dict[str, Any]) -> list[str]:
    """What pruning has removed, layer by layer, in words."""
    lines = []
    weights = record.get("weights", {})
    for name, zeros in weights.get("zeros", {}).items():
        new, size = weights["removed"][name], weights["sizes"][name]
        lines.append(f"layer {name}: {new:,} weights removed, {zeros:,} of {size:,} are zero")
    for name, units in record.get("relus", {}).get("layers", {}).items():
        whole = sum(units.values())
        counts = f"{units['zero']:,} zero, {units['linear']:,} linear, {units['kept']:,} of {whole:,} kept"
        lines.append(f"ReLU {name}: {counts}")
    return lines


def interrupted(out: str) -> None:
    """Say how to go on."""
    tell(f"mipverify: what was finished is in {out}; the same command with --resume continues")
