"""Limits that no run could keep are refused in one line by every public call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from torch import nn

import mipverify
from mipverify.errors import InputError

X = np.full(4, 0.5, np.float32)
NET = nn.Sequential(nn.Linear(4, 3))
CALLS: dict[str, Callable[..., Any]] = {
    "verify": lambda **given: mipverify.verify(NET, X, eps="0.1", **given),
    "minimum_distortion": lambda **given: mipverify.minimum_distortion(NET, X, **given),
    "worst_margin": lambda **given: mipverify.worst_margin(NET, X, None, "0.1", **given),
    "compare": lambda **given: mipverify.compare(NET, NET, X, eps="0.1", **given),
    "adversarial_accuracy": lambda **given: mipverify.adversarial_accuracy(NET, X[None], [0], "0.1", **given),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", -1), ("timeout", float("nan")), ("timeout", "5"), ("timeout", None),
        ("seed", -1), ("seed", "a"), ("seed", 1.5), ("seed", None),
        ("workers", -1), ("workers", "x"), ("workers", 1.5),
    ],
)  # fmt: skip
def test_limits(call: str, name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{name} must be a"):
        CALLS[call](**{name: value})


def test_memory_and_shapes() -> None:
    for value in ("4G", -1, 0.5):
        with pytest.raises(InputError, match="memory must be a whole number of bytes"):
            CALLS["verify"](memory=value)
    for shape in (4, "4", (2.5,), (0, 4)):
        with pytest.raises(InputError, match="input_shape must be the sizes"):
            CALLS["verify"](input_shape=shape)


def test_seeds_of_sessions() -> None:
    with pytest.raises(InputError, match="seed must be"):
        mipverify.Session(mipverify.Network.from_torch(NET, (4,)), seed=-1)


@pytest.mark.parametrize("targets", [1, "1", 1.5])
def test_targets_are_a_list(targets: object) -> None:
    with pytest.raises(InputError, match="targets must be a list of classes"):
        mipverify.robustness([0.5, 0.5], 0, 0.1, num_classes=3, targets=targets)  # type: ignore[arg-type]


def test_a_tensor_without_values_is_no_input() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match="device meta"):
        mipverify.verify(torch.nn.Linear(2, 2), torch.zeros(2, device="meta"), eps=0.1)
