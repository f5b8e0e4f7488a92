"""The training loop: epochs that can be interrupted at any moment and continued to the same weights."""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mipverify.models.architectures import build, resolved
from mipverify.models.initialization import ibp_initialization
from mipverify.models.pruning import make_permanent
from mipverify.models.training.data import Images, augment
from mipverify.models.training.files import (
    CHECKPOINT,
    RECORD,
    Trained,
    read_tensors,
    write_network,
    write_record,
    write_tensors,
)
from mipverify.models.training.measure import quick_metrics, verified_accuracy
from mipverify.models.training.objective import Objective, Sums
from mipverify.models.training.options import TrainingOptions, options_from
from mipverify.models.training.selection import Best
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mipverify import __version__
from mipverify.errors import InputError
from mipverify.network.torch_copy import detached_copy

WATCHED = 2000  # test images that are looked at after every epoch


@dataclass(frozen=True)
class Progress:
    """Where a training is: `metrics` are means over the epoch so far, `finished` says that the epoch is over."""

    epoch: int
    epochs: int
    step: int
    steps: int
    seconds: float
    metrics: dict[str, float]
    finished: bool


Report = Callable[[Progress], None]


def train(
    options: TrainingOptions,
    data: Images,
    test: Images,
    out: str | Path,
    *,
    resume: bool = False,
    initial: Trained | None = None,
    report: Report | None = None,
    log: Report | None = None,
) -> Trained:
    """Train a network and write checkpoints, network.onnx, network.pt and training.json into `out`.

    Random numbers are drawn anew from the seed and the epoch at the start of every epoch, and the learning rate is a
    function of the step, so that a run that was killed continues from its last whole epoch (`resume`) to exactly the
    weights it would have had, on the same machine with the same number of threads. torch's own random numbers are
    left as they were.

    initial   start from this network instead of fresh weights of `options.architecture`
    report    is told of every step, `log` of every epoch

    With `options.validation`, so many of the last training images choose the epoch whose network is kept; see
    `TrainingOptions`.

    Raises InputError: data of different shapes, `out` holds another run or, without `resume`, this one.
    """
    directory = Path(out)
    classes = max(data.classes, test.classes)
    if data.shape != test.shape:
        raise InputError(f"{test.path}: images of shape {test.shape}, but the training data have {data.shape}")
    validation = None
    if options.validation:
        data, validation = data.without_last(options.validation)
    if options.batch_size > len(data):
        raise InputError(f"{data.path}: {len(data)} images are fewer than one batch of {options.batch_size}")
    if initial is None:
        trained = Trained(
            _begun(options, data.shape, classes),
            resolved(options.architecture),
            data.shape,
            classes,
        )
    else:
        if initial.input_shape != data.shape or initial.classes < classes:
            raise InputError(
                f"{data.path}: images {data.shape} of {classes} classes, "
                f"but the network takes {initial.input_shape} and knows {initial.classes}"
            )
        trained = initial
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {directory}: cannot be made ({error.strerror})") from None
    with torch.random.fork_rng(devices=[]):
        return _Run(options, data, validation, test, directory, trained, report, log).train(resume)


def _begun(options: TrainingOptions, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network with fresh weights."""
    module = build(options.architecture, shape, classes, options.seed)
    if options.initialization == "ibp":
        ibp_initialization(module, generator=torch.Generator().manual_seed(options.seed))
    return module


class _Run:
    def __init__(
        self,
        options: TrainingOptions,
        data: Images,
        validation: Images | None,
        test: Images,
        directory: Path,
        trained: Trained,
        report: Report | None,
        log: Report | None,
    ):
        self.options, self.data, self.test, self.directory, self.trained = options, data, test, directory, trained
        self.validation, self.report, self.log = validation, report, log
        self.made_from = {
            "data_sha256": data.sha256,
            "training_images": len(data),
            "test_sha256": test.sha256,
            "initial_sha256": weights_sha256(trained.module),
        }
        self.per_epoch = len(data) // options.batch_size
        self.steps = self.per_epoch * options.epochs
        self.history: list[dict[str, float]] = []
        module = trained.module
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, weight_decay=options.weight_decay)
        self.best = Best()
        self.average: AveragedModel | None = None
        if options.average:
            mean = moving_average(options.average)
            self.average = AveragedModel(detached_copy(module), multi_avg_fn=mean, use_buffers=True)

    def train(self, resume: bool) -> Trained:
        begin = self._restore(resume)
        try:
            return self._train(begin)
        except KeyboardInterrupt:
            if not self.history:  # there is none of an epoch yet
                self._write_network()
            raise

    def _train(self, begin: int) -> Trained:
        module = self.trained.module
        module.train()
        for epoch in range(begin, self.options.epochs):
            if self.best.is_stale(epoch, self.options.ramp[1] * self.options.epochs, self.options.patience):
                break
            started = time.perf_counter()
            torch.manual_seed(_seed_of(self.options.seed, epoch))
            # Traced anew, as after a resume: gradients of views are added up in the order in which tracing made them.
            objective = Objective(module, self.trained.input_shape, self.options)
            sums = self._epoch(objective, epoch, started)
            metrics = sums.means() | self._measure(epoch + 1)
            seconds = time.perf_counter() - started
            if not math.isfinite(metrics["loss"]):
                raise InputError(f"the loss is no longer finite in epoch {epoch + 1}: try a smaller --learning-rate")
            self.history.append({"epoch": epoch + 1, "seconds": round(seconds, 3), **metrics})
            self._save(epoch + 1)
            self._tell(Progress(epoch + 1, self.options.epochs, (epoch + 1) * self.per_epoch, self.steps, seconds,
                                metrics, finished=True))  # fmt: skip
        module.load_state_dict(self._kept())
        module.eval()
        make_permanent(module)
        write_network(self.directory, self.trained)
        self._write_record(finished=True)
        return self.trained

    def _measure(self, epochs: int) -> dict[str, float]:
        """Figures of the network after so many epochs, which is kept if it is the best."""
        now = replace(self.trained, module=self.trained.module if self.average is None else self.average.module)
        now.module.eval()
        metrics = quick_metrics(now, self.test.first(WATCHED), self.options.eps)
        if self.validation is not None:
            verified = verified_accuracy(now, self.validation, self.options.eps)
            metrics["verified accuracy"] = verified
            self.best.consider(epochs, verified, now.module)
        now.module.train()
        return metrics

    def _kept(self) -> dict[str, Any]:
        """Weights of the network that the run gives: the best, the average or the present ones."""
        if self.best.epoch:
            return self.best.weights
        return (self.trained.module if self.average is None else self.average.module).state_dict()

    def _epoch(self, objective: Objective, epoch: int, started: float) -> Sums:
        options = self.options
        order = torch.randperm(len(self.data))[: self.per_epoch * options.batch_size]
        sums = Sums()
        for number, batch in enumerate(order.split(options.batch_size)):
            step = epoch * self.per_epoch + number
            progress = step / self.steps
            for group in self.optimizer.param_groups:
                group["lr"] = options.learning_rate * learning_rate_share(progress, options.milestones)
            x = self.data.pixels[batch]
            if options.shift or options.flip or options.warp:
                x = augment(x, shift=options.shift, flip=options.flip, warp=options.warp)
            loss = objective(x, self.data.labels[batch], progress, sums)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if options.gradient_clip:
                nn.utils.clip_grad_norm_(self.parameters, options.gradient_clip)
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self.trained.module)
            if self.report is not None:
                seconds = time.perf_counter() - started
                self.report(
                    Progress(epoch + 1, options.epochs, step + 1, self.steps, seconds, sums.means(), finished=False)
                )
        return sums

    def _tell(self, progress: Progress) -> None:
        for listener in (self.report, self.log):
            if listener is not None:
                listener(progress)

    def _restore(self, resume: bool) -> int:
        """Continue where the last checkpoint was written; returns the number of finished epochs."""
        file = self.directory / CHECKPOINT
        if not file.exists():
            if resume and (self.directory / RECORD).exists():
                raise InputError(f"{self.directory}: there is no {CHECKPOINT} to resume from")
            return 0
        if not resume:
            raise InputError(f"{self.directory}: holds a training run already; --resume continues it")
        content = read_tensors(file)
        try:
            before = options_from(content["options"])
            different = self.options.differences(before)
            if not different:
                different = [key for key, value in self.made_from.items() if content["made_from"].get(key) != value]
            if different:
                raise InputError(f"{self.directory}: was begun with another {' and another '.join(different)}")
            self.trained.module.load_state_dict(content["weights"])
            self.optimizer.load_state_dict(content["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(content["average"])
            self.best.restore(content["best"])
            self.history = content["history"]
            return int(content["epochs"])
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(f"{file}: is not a checkpoint of this program ({error})") from None

    def _save(self, epochs: int) -> None:
        content = {
            "options": self.options.record(),
            "made_from": self.made_from,
            "epochs": epochs,
            "weights": self.trained.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "best": self.best.state(),
            "history": self.history,
        }
        write_tensors(self.directory / CHECKPOINT, content)
        self._write_network()
        self._write_record(finished=False)

    def _write_network(self) -> None:
        """The network as it is now: a run that is interrupted leaves one that can be used."""
        copy = detached_copy(self.trained.module)
        copy.load_state_dict(self._kept())
        make_permanent(copy)
        write_network(self.directory, replace(self.trained, module=copy))

    def _write_record(self, *, finished: bool) -> None:
        trained = self.trained
        record: dict[str, Any] = {
            "finished": finished,
            "options": self.options.record(),
            "architecture": trained.architecture,
            "input_shape": list(trained.input_shape),
            "classes": trained.classes,
            "parameters": sum(p.numel() for p in trained.module.parameters()),
            "data": self.data.path,
            "test": self.test.path,
            "kept_epoch": self.best.epoch or len(self.history),
            **self.made_from,
            "weights_sha256": weights_sha256(trained.module) if finished else None,
            "seconds": round(sum(row["seconds"] for row in self.history), 3),
            "threads": torch.get_num_threads(),
            "versions": {
                "mipverify": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
            },
            "epochs": self.history,
        }
        write_record(self.directory, record)


def learning_rate_share(progress: float, milestones: tuple[float, ...] = ()) -> float:
    """The learning rate after a part of the training, as a share of the largest.

    With milestones, a fifth of what it was after each. Without, one cycle (Smith and Topin 2017): up along a line for
    a fifth of the training, then down along a cosine.
    """
    if milestones:
        return float(0.2 ** sum(progress >= milestone for milestone in milestones))
    if progress < 0.2:
        return 0.1 + 0.9 * progress / 0.2
    return 0.5 * (1 + math.cos(math.pi * (progress - 0.2) / 0.8))


def moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """How `AveragedModel` takes in the weights of a step: old ones count `decay`, but less in the first steps.

    After n of them (1 + n) / (10 + n) if that is less, so that what was before the training is soon forgotten: with
    0.999 it would still make up four fifths after 230 steps.
    """

    def take_in(averages: Any, present: Any, count: Any) -> None:
        steps = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))(averages, present, count)

    return take_in


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over names and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        assert isinstance(value, Tensor)
        digest.update(name.encode() + b"\0" + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _seed_of(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
