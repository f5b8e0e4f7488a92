"""The presets: options of training runs by name, and where their constants come from."""

from __future__ import annotations

from typing import Any

from mipverify.models.training.options import TrainingOptions

from mipverify.errors import InputError

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
    "certified-wide": {
        "architecture": "rs_cnn_wide",
        "certified": 0.002,
        "stability": 1e-5,
        "bounded_share": 0.25,
        "attack_steps": 1,
        "attack_step": 1.25,
        "radius_factor": 1.5,
        "epochs": 40,
        "learning_rate": 2.5e-3,
        "ramp": (0.0, 0.15),
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

# Published schedules. Shared: Adam at 5e-4, gradients of norm 10 at most, weights and regularizers (0.5) of Shi et al.
_SCHEDULE: dict[str, Any] = {
    "attack_steps": 0,
    "certified": 1.0,
    "initialization": "ibp",
    "warmup": 0.5,
    "ramp_shape": "smooth",
    "learning_rate": 5e-4,
    "gradient_clip": 10.0,
}
# The radius grows over the first 20 of 70 epochs, the learning rate falls after 50 and 60.
_SCHEDULE_MNIST: dict[str, Any] = {
    **_SCHEDULE,
    "epochs": 70,
    "batch_size": 256,
    "ramp": (0.0, 20 / 70),
    "milestones": (50 / 70, 60 / 70),
}
# One epoch without perturbations, then 80 of 160 in which the radius grows; the rate falls after 120 and 140.
_SCHEDULE_CIFAR: dict[str, Any] = {
    **_SCHEDULE,
    "epochs": 160,
    "batch_size": 128,
    "ramp": (1 / 160, 81 / 160),
    "milestones": (120 / 160, 140 / 160),
    "eps": 2 / 255,
    "shift": 2,
    "flip": True,
}
# The same for 260 epochs, falling after 180 and 220, which De Palma et al. take at 8/255.
_LONGER: dict[str, Any] = {"epochs": 260, "ramp": (1 / 260, 81 / 260), "milestones": (180 / 260, 220 / 260)}
_CROWN: dict[str, Any] = {"certified_bounds": "crown", "certified_grows": True}
_BOX: dict[str, Any] = {"attack_steps": 8, "attack_step": 0.3}
_CORNER: dict[str, Any] = {"attack_steps": 1, "attack_step": 10.0}  # one step that ends at the side of the ball

# Not published: batch normalization in one cycle of the learning rate.
_CYCLE: dict[str, Any] = {
    "architecture": "cnn_norm",
    "batch_size": 256,
    "epochs": 32,
    "learning_rate": 2e-3,
    "milestones": (),
    "average": 0.999,
    "ramp": (0.0, 0.25),
}
# What the large radius takes instead: networks that begin with `Thresholds`, more steps, a radius that grows sooner.
_THRESHOLDS: dict[str, Any] = {"architecture": "cnn_threshold", "batch_size": 128, "epochs": 34, "ramp": (0.0, 0.15)}

# What the published runs take at a small and at a large radius (0.1 and 0.3; 2/255 and 8/255). On MNIST networks are
# trained for twice 0.1 and for 4/3 of 0.3 by Gowal et al., Zhang et al. and De Palma et al., for the radius itself by
# Mueller et al.; constants of MTL-IBP and SABR are those of the commands that come with their code.
_BY_RADIUS: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "mnist": {
        "ibp": ({"radius_factor": 2.0}, {"radius_factor": 4 / 3}),
        "crown-ibp": ({**_CROWN, "radius_factor": 2.0}, {**_CROWN, "radius_factor": 4 / 3}),
        "sabr": ({**_BOX, "small_box": 0.4}, {**_BOX, "small_box": 0.6}),
        "mtl-ibp": (
            {**_CORNER, "certified": 0.01, "radius_factor": 2.0},
            {**_CORNER, "certified": 0.08, "radius_factor": 4 / 3},
        ),
        "normalized": (
            {**_CYCLE, **_CORNER, "certified": 0.005, "bounded_share": 0.5, "radius_factor": 1.5}
            | {"warp": 0.1, "shift": 1},
            {**_CYCLE, **_THRESHOLDS, "statistics": "centers", "radius_factor": 1.04},
        ),
    },
    "cifar10": {
        "ibp": ({}, {}),
        "crown-ibp": (_CROWN, _CROWN),
        "sabr": ({**_BOX, "small_box": 0.1}, {**_BOX, "small_box": 0.7}),
        "mtl-ibp": (
            {"attack_steps": 8, "attack_step": 0.25, "attack_factor": 2.1, "certified": 0.004},
            {**_CORNER, **_LONGER, "certified": 0.5},
        ),
    },
}
_SCHEDULES = {"mnist": _SCHEDULE_MNIST, "cifar10": _SCHEDULE_CIFAR}
_LARGE = {"mnist": 0.2, "cifar10": 5 / 255}  # a radius above counts as large
NAMES = (*PRESETS, *(f"{data}-{loss}" for data, losses in _BY_RADIUS.items() for loss in losses))


def preset(name: str, **changes: Any) -> TrainingOptions:
    """The options of a preset, some of them changed; changes that are None are left out.

    The published presets depend on the radius. Raises `InputError` if there is no such preset or a value makes no
    sense.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    return TrainingOptions(**{"preset": name, **_values(name, given.get("eps")), **given})


def _values(name: str, eps: float | None) -> dict[str, Any]:
    """What a preset sets, for a radius or its own."""
    if name not in NAMES:
        raise InputError(f"preset {name!r}: not one of {', '.join(NAMES)}")
    if name in PRESETS:
        return PRESETS[name]
    data, _, loss = name.partition("-")
    small, large = _BY_RADIUS[data][loss]
    is_large = eps is not None and eps > _LARGE[data]
    return {**_SCHEDULES[data], **(large if is_large else small)}
