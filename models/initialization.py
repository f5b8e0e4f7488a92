"""Initial weights under which interval bounds keep their width from layer to layer."""

from __future__ import annotations

import math

import torch
from torch import nn


@torch.no_grad()
def ibp_initialization(module: nn.Module, *, generator: torch.Generator | None = None) -> None:
    """Draw the weights of all convolutions and dense layers anew, from N(0, 2 pi / n^2) with n inputs to a unit.

    An affine layer widens intervals by n E|w| in the mean and a ReLU halves them, so that E|w| = 2 / n, which is
    sigma = sqrt(2 pi) / n, keeps their width; the usual initial weights, made to keep the variance of activations,
    widen them with the square root of n [Shi et al. 2021, arXiv 2103.17268, section 3.2]. Biases stay as they are.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            inputs = part.weight[0].numel()
            part.weight.normal_(0.0, math.sqrt(2 * math.pi) / inputs, generator=generator)
