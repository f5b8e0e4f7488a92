"""Inputs outside of the domain are refused by every loss, attack and count, as `robustness` refuses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from mipverify.models import (
    adversarial_loss,
    certified_loss,
    certified_margins,
    input_box,
    pgd_attack,
    relu_stability_loss,
    unstable_units,
)

from mipverify.errors import InputError
from tests.models.nets import case

LABELS = torch.tensor([0, 2, 1])
CALLS: dict[str, Callable[..., Any]] = {
    "input box": lambda module, x, **more: input_box(x, 0.01, **more),
    "stability": lambda module, x, **more: relu_stability_loss(module, x, 0.01, **more),
    "attack": lambda module, x, **more: pgd_attack(module, x, LABELS, 0.01, steps=1, **more),
    "adversarial loss": lambda module, x, **more: adversarial_loss(module, x, LABELS, 0.01, steps=1, **more),
    "certified loss": lambda module, x, **more: certified_loss(module, x, LABELS, 0.01, **more),
    "margins": lambda module, x, **more: certified_margins(module, x, LABELS, 0.01, **more),
    "count": lambda module, x, **more: unstable_units(module, x, 0.01, **more),
    "count of arrays": lambda module, x, **more: unstable_units(module, x.numpy(), 0.01, **more),
}


@pytest.mark.parametrize("call", CALLS)
def test_normalized_inputs_are_refused(call: str) -> None:
    module, _, x = case("dense")
    x = x.detach().clamp(0, 1)
    CALLS[call](module, x)
    moved = x.clone()
    moved.reshape(len(x), -1)[1, 2] = -0.42
    with pytest.raises(InputError, match=r"image pixel 2 is -0.42, outside of the domain \[0.0, 1.0\]"):
        CALLS[call](module, moved)
    CALLS[call](module, moved, domain=None)
    CALLS[call](module, moved, domain=(-0.5, 1.0))


def test_the_ends_of_the_domain_belong_to_it() -> None:
    ends = torch.tensor([[0.0, 1.0], [np.float32(0.3), 1.0]])
    low, high = input_box(ends, 0.25)
    assert low.min() == 0
    assert high.max() == 1
    input_box(ends[1:], 0.25, domain=(0.3, 1.0))
