"""The command `finetune`: go on training a network of an earlier run with another loss."""

from __future__ import annotations

from typing import Annotated

from mipverify.cli import options as opt
from mipverify.cli import train as train_module
from mipverify.cli import training
from mipverify.cli.declare import argument
from mipverify.errors import Complaints

Run = Annotated[str, argument(metavar="RUN", help="Directory of a run, or its network.pt.", show_default=False)]


def finetune(
    run: Run,
    preset: training.Preset = None,
    data: training.Data = None,
    test: training.Test = None,
    eps: training.Eps = None,
    out: training.Out = None,
    resume: training.Resume = False,
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
    statistics: training.Statistics = None,
    average: training.Average = None,
    images: training.Images_ = None,
    seed: training.Seed = None,
    threads: training.Threads = None,
    tensorboard: training.TensorBoard = False,
    evaluate: training.Evaluate = False,
    samples: training.Samples = training.SOME,
    timeout: training.Timeout = training.SECONDS,
    workers: training.Workers = 0,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> int:
    """Go on training an existing network. Its radius does not grow from 0, pruned weights and ReLUs stay pruned.

    \b
    Examples:
      mipverify finetune run --preset mnist-stable --data mnist_train.npz --test mnist_test.npz --eps 0.1 --epochs 3 \\
          --learning-rate 0.0005 --out finer --evaluate

    With --evaluate the table shows the network before and after.
    """
    complaints = Complaints()
    with complaints:
        training.needed({"--preset NAME": preset, "--data FILE": data, "--out DIR": out})
    with training.torch_is_there():
        from mipverify.models.training.files import read_network
        from mipverify.models.training.pruned import keep_zeros

        initial = None
        with complaints:
            initial = read_network(run)
            keep_zeros(initial.module)
        changes = {
            "architecture": None if initial is None else initial.architecture,
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
            "statistics": statistics,
            "average": average,
            "seed": seed,
            "ramp": (0.0, 0.0),
        }
        return train_module.run(
            complaints, preset, changes, initial, data, test, out, resume=resume, images=images, threads=threads,
            tensorboard=tensorboard, evaluate=evaluate, compared={"before": run} if evaluate else {}, samples=samples,
            timeout=timeout, workers=workers, json=json, quiet=quiet,
        )  # fmt: skip
