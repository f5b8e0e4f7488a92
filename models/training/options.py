"""What a training run is told: options, and the presets that fill them."""

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
    radius_factor     bounds are taken at `eps * radius_factor` (a little more than is to be proven)
    ramp              over which part of the training the radius grows from 0 to its value
    attack_steps      gradient steps of the attack; 0 trains the clean loss in its place
    attack_step       size of one step, as a fraction of the radius
    certified_bounds  how logits are bounded: `interval` or `crown`
    stability_bounds  bounds of the hidden units: `interval`, `improved_interval` or `crown`
    bounded_share     share of each batch for which bounds are computed: they cost as much as two steps of the attack
    shift, flip       augmentation: random shifts by up to so many pixels, random mirror images
    warp              augmentation: random affine maps whose matrix is so close to the identity
    """

    preset: str = "mnist-stable"
    architecture: str = "rs_cnn"
    eps: float = 0.1
    epochs: int = 6
    batch_size: int = 128
    learning_rate: float = 3e-3
    radius_factor: float = 1.0
    ramp: tuple[float, float] = (0.0, 0.05)
    attack_steps: int = 2
    attack_step: float = 0.75
    certified: float = 0.0
    certified_bounds: str = "interval"
    stability: float = 0.0
    stability_bounds: str = "interval"
    bounded_share: float = 1.0
    sparsity: float = 0.0
    weight_decay: float = 0.0
    shift: int = 0
    flip: bool = False
    warp: float = 0.0
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
        )
        above_zero = (
            ("--eps", self.eps, 1.0),
            ("--learning-rate", self.learning_rate, 10.0),
            ("--bounded-share", self.bounded_share, 1.0),
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
        begin, end = self.ramp
        with complaints:
            if not 0 <= begin <= end <= 1:
                raise InputError(f"ramp must be two fractions of the training in order, not {begin:g} and {end:g}")
        complaints.end()

    def record(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return dataclasses.asdict(self) | {"ramp": list(self.ramp)}

    def differences(self, other: TrainingOptions) -> list[str]:
        """Names of the options that differ."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != getattr(other, f.name)]


def options_from(record: dict[str, Any]) -> TrainingOptions:
    """The inverse of `record`. Raises `InputError` if the record is not one."""
    names = {f.name for f in dataclasses.fields(TrainingOptions)}
    if not set(record) <= names:
        raise InputError(f"unknown training options: {', '.join(sorted(set(record) - names))}")
    try:
        return TrainingOptions(**(record | {"ramp": tuple(record["ramp"])} if "ramp" in record else record))
    except TypeError as error:
        raise InputError(f"training options: {error}") from None


_MNIST: dict[str, dict[str, Any]] = {
    "adversarial": {},
    "sparse": {"sparsity": 5e-6},
    "stable": {"sparsity": 5e-6, "stability": 1e-3, "bounded_share": 0.25, "learning_rate": 2e-3},
    "certified": {
        "certified": 0.02,
        "stability": 5e-5,
        "bounded_share": 0.5,
        "epochs": 18,
        "ramp": (0.0, 0.2),
        "warp": 0.1,
    },
    "interval": {
        "certified": 0.8,
        "attack_steps": 0,
        "stability": 1e-5,
        "learning_rate": 2e-3,
        "radius_factor": 1.1,
        "epochs": 12,
        "ramp": (0.02, 0.5),
    },
}
_CIFAR: dict[str, Any] = {"eps": 2 / 255, "epochs": 40, "shift": 4, "flip": True}
PRESETS: dict[str, dict[str, Any]] = {
    **{f"mnist-{name}": values for name, values in _MNIST.items()},
    **{f"cifar10-{name}": {**values, **_CIFAR} for name, values in _MNIST.items()},
}


def preset(name: str, **changes: Any) -> TrainingOptions:
    """The options of a preset, some of them changed; changes that are None are left out.

    Raises `InputError` if there is no such preset or a value makes no sense.
    """
    if name not in PRESETS:
        raise InputError(f"preset {name!r}: not one of {', '.join(PRESETS)}")
    given = {key: value for key, value in changes.items() if value is not None}
    return TrainingOptions(**{"preset": name, **PRESETS[name], **given})


def _check(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    if not math.isfinite(value) or not low <= value <= high or (open_low and value == low):
        between = f"above {low:g}" if open_low else f"at least {low:g}"
        if high < math.inf:
            between += f" and at most {high:g}"
        raise InputError(f"{name} must be {between}, not {value:g}")


def _one_of(name: str, value: str, values: tuple[str, ...]) -> None:
    if value not in values:
        raise InputError(f"{name} {value!r}: one of {', '.join(values)} is needed")
