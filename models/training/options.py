"""What a training run is told."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from mipverify.errors import Complaints, InputError


@dataclass(frozen=True)
class TrainingOptions:
    """Everything that decides the weights, beside the data and the machine.

    The loss of a batch is

        (1 - certified) * cross-entropy of attacked logits + certified * cross-entropy of bounded logits
        + stability * RS + sparsity * l_1

    RS is the ReLU-stability loss, summed over the units and averaged over the batch; l_1 counts a kernel's weight as
    often as it is applied. The first line is the mixture MTL-IBP of `mipverify.models.certified_loss`.

    eps               l_inf radius that the network is trained for
    radius_factor     training takes `eps * radius_factor`, more than is to be proven, for attacks and bounds
    attack_factor     attacks search so many times the radius of training
    ramp              over which part of the training the radius grows from 0 to its value
    ramp_shape        how: `linear`, or `smooth` as in `mipverify.models.Schedule`
    initialization    fresh weights: `default` of torch, or `ibp` (Shi et al. 2021)
    warmup            weight of the regularizers of Shi et al. while the radius grows, falling to 0 with it
    milestones        parts of the training after which the learning rate falls to a fifth; without, it makes one cycle
    gradient_clip     largest norm of the gradient; 0 leaves it
    attack_steps      gradient steps of the attack; 0 trains the clean loss in its place
    attack_step       size of one step, as a fraction of the radius
    certified_bounds  how logits are bounded: `interval`, or `crown` with a share that falls from 1 to 0 as the radius
                      grows (CROWN-IBP)
    certified_grows   whether the share of the bounded loss grows with the radius
    small_box         bounds are taken over a box of this share of the radius, around an attacked point (SABR); 1 is the
                      whole ball
    stability_bounds  bounds of the hidden units: `interval`, `improved_interval` or `crown`
    statistics        what batch normalizations use while training: their batch's, and bounds those of a `clean` pass
                      over it, or all of them those of the `centers` of bounds
    bounded_share     share of each batch for which bounds are computed: they cost as much as two steps of the attack
    shift, flip       augmentation: random shifts by up to so many pixels, random mirror images
    warp              augmentation: random affine maps whose matrix is so close to the identity
    average           the network is a moving average of the weights: what the old ones count in each step, less in the
                      first ones; 0 is none
    validation        training images held out to choose the epoch with the best verified accuracy; 0 takes the last
    patience          epochs without a better one after which the training stops, once the radius has grown; 0 is never
    """

    preset: str = "mnist-stable"
    architecture: str = "rs_cnn"
    eps: float = 0.1
    epochs: int = 6
    batch_size: int = 128
    learning_rate: float = 3e-3
    radius_factor: float = 1.0
    attack_factor: float = 1.0
    ramp: tuple[float, float] = (0.0, 0.05)
    ramp_shape: str = "linear"
    initialization: str = "default"
    warmup: float = 0.0
    milestones: tuple[float, ...] = ()
    gradient_clip: float = 0.0
    attack_steps: int = 2
    attack_step: float = 0.75
    certified: float = 0.0
    certified_bounds: str = "interval"
    certified_grows: bool = False
    small_box: float = 1.0
    stability: float = 0.0
    stability_bounds: str = "interval"
    statistics: str = "clean"
    bounded_share: float = 1.0
    sparsity: float = 0.0
    weight_decay: float = 0.0
    shift: int = 0
    flip: bool = False
    warp: float = 0.0
    average: float = 0.0
    validation: int = 0
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        complaints = Complaints()
        ranges = (
            ("--epochs", self.epochs, 1, 100_000),
            ("--batch-size", self.batch_size, 1, 1_000_000),
            ("--attack-steps", self.attack_steps, 0, 10_000),
            ("--seed", self.seed, 0, 2**31 - 1),
            ("--stability", self.stability, 0.0, math.inf),
            ("--sparsity", self.sparsity, 0.0, math.inf),
            ("--weight-decay", self.weight_decay, 0.0, math.inf),
            ("--certified", self.certified, 0.0, 1.0),
            ("warp", self.warp, 0.0, 0.5),
            ("warmup", self.warmup, 0.0, math.inf),
            ("gradient_clip", self.gradient_clip, 0.0, math.inf),
            ("--average", self.average, 0.0, 0.999999),
            ("--validation", self.validation, 0, 1_000_000),
            ("--patience", self.patience, 0, 100_000),
        )
        above_zero = (
            ("--eps", self.eps, 1.0),
            ("--learning-rate", self.learning_rate, 10.0),
            ("--bounded-share", self.bounded_share, 1.0),
            ("--small-box", self.small_box, 1.0),
            ("--radius-factor", self.radius_factor, 100.0),
            ("attack_factor", self.attack_factor, 100.0),
        )
        for name, value, low, high in ranges:
            with complaints:
                _check(name, value, low, high)
        for name, value, high in above_zero:
            with complaints:
                _check(name, value, 0.0, high, open_low=True)
        with complaints:
            _one_of("certified_bounds", self.certified_bounds, ("interval", "crown"))
        with complaints:
            _one_of("--bounds", self.stability_bounds, ("interval", "improved_interval", "crown"))
        with complaints:
            _one_of("ramp_shape", self.ramp_shape, ("linear", "smooth"))
        with complaints:
            _one_of("initialization", self.initialization, ("default", "ibp"))
        with complaints:
            _one_of("--statistics", self.statistics, ("clean", "centers"))
        with complaints:
            if self.statistics == "centers" and (self.small_box < 1 or not (self.certified or self.stability)):
                raise InputError("--statistics centers needs bounds of whole balls: --certified or --stability")
        with complaints:
            if self.patience and not self.validation:
                raise InputError("--patience needs --validation: images by which the best epoch is known")
        with complaints:
            if self.small_box < 1 and not self.certified:
                raise InputError("--small-box needs --certified: there are no bounds to take over it")
        with complaints:
            if list(self.milestones) != sorted(self.milestones) or not all(0 < m < 1 for m in self.milestones):
                raise InputError("milestones must be parts of the training in order, between 0 and 1")
        begin, end = self.ramp
        with complaints:
            if not 0 <= begin <= end <= 1:
                raise InputError(f"ramp must be two fractions of the training in order, not {begin:g} and {end:g}")
        complaints.end()

    def record(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return dataclasses.asdict(self) | {"ramp": list(self.ramp), "milestones": list(self.milestones)}

    def differences(self, other: TrainingOptions) -> list[str]:
        """Names of the options that differ."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != getattr(other, f.name)]


def options_from(record: dict[str, Any]) -> TrainingOptions:
    """The inverse of `record`. Raises `InputError` if the record is not one."""
    names = {f.name for f in dataclasses.fields(TrainingOptions)}
    if not set(record) <= names:
        raise InputError(f"unknown training options: {', '.join(sorted(set(record) - names))}")
    try:
        tuples: dict[str, Any] = {name: tuple(record[name]) for name in ("ramp", "milestones") if name in record}
        return TrainingOptions(**(record | tuples))
    except TypeError as error:
        raise InputError(f"training options: {error}") from None


def _check(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    if not math.isfinite(value) or not low <= value <= high or (open_low and value == low):
        between = f"above {low:g}" if open_low else f"at least {low:g}"
        if high < math.inf:
            between += f" and at most {high:g}"
        raise InputError(f"{name} must be {between}, not {value:g}")


def _one_of(name: str, value: str, values: tuple[str, ...]) -> None:
    if value not in values:
        raise InputError(f"{name} {value!r}: one of {', '.join(values)} is needed")
