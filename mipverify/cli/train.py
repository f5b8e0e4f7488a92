"""The command `train`: a network that is robust and verifies fast, from a preset."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mipverify.cli import options as opt
from mipverify.cli import training
from mipverify.cli.console import stdout_for_results_only
from mipverify.cli.declare import option
from mipverify.cli.exits import DONE
from mipverify.errors import Complaints, InputError

if TYPE_CHECKING:
    from mipverify.models.training import Trained

Architecture = Annotated[
    str | None,
    option(
        metavar="NAME",
        help="mlp_a, mlp_b, cnn_a, cnn_b, res or rs_cnn, as in the papers, rs_cnn_wide, cnn_norm or cnn_threshold; or "
        "FILE.py:FUNCTION, which returns a module (given shape and classes if it asks for them).",
    ),
]
Weights = Annotated[str | None, option(metavar="FILE", help="Begin with these weights, a state dict (.pt).")]


def train(
    preset: training.Preset = None,
    data: training.Data = None,
    test: training.Test = None,
    eps: training.Eps = None,
    out: training.Out = None,
    resume: training.Resume = False,
    architecture: Architecture = None,
    weights: Weights = None,
    epochs: training.Epochs = None,
    batch_size: training.BatchSize = None,
    learning_rate: training.LearningRate = None,
    attack_steps: training.AttackSteps = None,
    stability: training.Stability = None,
    sparsity: training.Sparsity = None,
    certified: training.Certified = None,
    radius_factor: training.RadiusFactor = None,
    bounds: training.Bounds = None,
    bounded_share: training.BoundedShare = None,
    small_box: training.SmallBox = None,
    statistics: training.Statistics = None,
    average: training.Average = None,
    validation: training.Validation = None,
    patience: training.Patience = None,
    images: training.Images_ = None,
    seed: training.Seed = None,
    threads: training.Threads = None,
    tensorboard: training.TensorBoard = False,
    evaluate: training.Evaluate = False,
    against: training.Against = None,
    samples: training.Samples = training.SOME,
    timeout: training.Timeout = training.SECONDS,
    workers: training.Workers = 0,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Train a network that is robust and verifies fast.

    \b
    Examples:
      mipverify train --preset mnist-stable --data mnist_train.npz --test mnist_test.npz --eps 0.1 --out run
      mipverify train --preset mnist-stable --data mnist_train.npz --test mnist_test.npz --eps 0.1 --out run --resume
      mipverify train --preset mnist-certified --data mnist_train.npz --test mnist_test.npz --eps 0.3 --out run2 \\
          --evaluate --against run

    Writes network.onnx, network.pt, training.json (everything that made it) and checkpoints into DIR, after every
    epoch. A run that was interrupted continues with --resume to the same weights. Without --test, the last tenth of
    the training images, 2000 at most, is held out for tests.
    """
    complaints = Complaints()
    with complaints:
        training.needed({"--preset NAME": preset, "--data FILE": data, "--out DIR": out})
    changes = {
        "architecture": architecture,
        "eps": training.radius(complaints, eps),
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "attack_steps": attack_steps,
        "stability": stability,
        "sparsity": sparsity,
        "certified": certified,
        "radius_factor": radius_factor,
        "stability_bounds": bounds,
        "bounded_share": bounded_share,
        "small_box": small_box,
        "statistics": statistics,
        "average": average,
        "validation": validation,
        "patience": patience,
        "seed": seed,
    }
    runs = {"before": against} if against is not None else {}
    with training.torch_is_there():
        return run(
            complaints, preset, changes, None, data, test, out, weights=weights, resume=resume, images=images,
            threads=threads, tensorboard=tensorboard, evaluate=evaluate, compared=runs, samples=samples,
            timeout=timeout, workers=workers, json=json, quiet=quiet,
        )  # fmt: skip


def run(
    complaints: Complaints,
    preset: str | None,
    changes: dict[str, Any],
    initial: Trained | None,
    data: str | None,
    test: str | None,
    out: str | None,
    *,
    weights: str | None = None,
    resume: bool,
    images: int | None,
    threads: int | None,
    tensorboard: bool,
    evaluate: bool,
    compared: dict[str, str],
    samples: str,
    timeout: float,
    workers: int,
    json: bool,
    quiet: bool,
) -> int:
    """Train as `mipverify train` and `mipverify finetune` do; `compared`: other runs in the evaluation, by name.

    complaints: what is wrong with the command line so far. Raises InputError with all that is wrong, before any work.
    """
    from mipverify.models.architectures import resolved
    from mipverify.models.training import preset as preset_of
    from mipverify.models.training import read_images
    from mipverify.models.training import train as train_network
    from mipverify.models.training.files import begun_with, read_network, read_record
    from mipverify.models.training.progress import Live, TensorBoard
    from mipverify.report.configuration import parse_samples

    chosen = training_images = test_images = None
    with complaints:
        opt.check_limits(timeout, workers or 1)
    if changes["architecture"] is not None:
        changes = {**changes, "architecture": resolved(changes["architecture"])}
    if preset is not None:
        with complaints:
            chosen = preset_of(preset, **changes)
    with complaints:
        training.set_threads(threads)
    with complaints:
        if images is not None and images < 1:
            raise InputError(f"--images must be at least 1, not {images}")
    for directory in compared.values():
        with complaints:
            read_network(directory)
    if data is not None:
        with complaints:
            training_images = read_images(data).first(images)
    with complaints:
        if test is not None:
            test_images = read_images(test)
        elif training_images is not None:
            training_images, test_images = training_images.held_out()
    if evaluate and test_images is not None:
        with complaints:
            parse_samples(training.fitting(samples, len(test_images)), len(test_images))
    if weights is not None and chosen is not None and training_images is not None and test_images is not None:
        classes = max(training_images.classes, test_images.classes)
        with complaints:
            initial = begun_with(weights, chosen.architecture, training_images.shape, classes)
    complaints.end()
    assert chosen is not None
    assert training_images is not None
    assert test_images is not None
    assert out is not None
    with ExitStack() as stack:
        if json:
            stack.enter_context(stdout_for_results_only())
        log = None
        if tensorboard:
            log = TensorBoard(Path(out) / "log")
            stack.callback(log.close)
        try:
            with Live(quiet=quiet) as live:
                train_network(
                    chosen, training_images, test_images, out, resume=resume, initial=initial, report=live, log=log
                )
        except KeyboardInterrupt:
            training.interrupted(out)
            raise
        figures = {}
        if evaluate:
            runs = {**compared, "after" if compared else "network": out}
            figures = training.evaluation(
                runs,
                test_images,
                chosen.eps,
                training.fitting(samples, len(test_images)),
                timeout=timeout,
                workers=workers,
                quiet=quiet,
            )
    training.conclude(read_record(Path(out)), out, figures, json=json, quiet=quiet)
    return DONE
