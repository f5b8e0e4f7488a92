"""What a torch module is asked for where it does not give one row of scores: one of several outputs, two classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mipverify.errors import InputError
from mipverify.network.graph import Affine, Network, Term
from mipverify.network.operators import Dense


class Selected(nn.Module):
    """One output of a module that returns several: an entry of a tuple or dict, or an attribute of what it returns."""

    def __init__(self, module: nn.Module, output: int | str):
        super().__init__()
        self.module, self.output = module, output

    def forward(self, x: Tensor) -> Tensor:
        """The chosen output at x (B, *shape)."""
        return select(self.module(x), self.output)


def select(result: Any, output: int | str) -> Any:
    """An output by its place or name. Raises InputError that lists those there are."""
    if isinstance(output, str) and not isinstance(result, Mapping) and hasattr(result, output):
        return getattr(result, output)
    try:
        return result[output]
    except (KeyError, IndexError, TypeError):
        raise InputError(f"the module has no output {output!r}: {outputs(result)}") from None


def outputs(result: Any) -> str:
    """What a module returned, in words."""
    if isinstance(result, Mapping):
        return f"it returns {', '.join(map(repr, result))}"
    if isinstance(result, (tuple, list)):
        return f"it returns {len(result)} values, counted from 0"
    return f"it returns a {type(result).__name__}"


class TwoClasses(nn.Module):
    """A module with one logit (or its sigmoid) as a classifier of two: the scores of class 0 and 1 are tie and output.

    tie: the output from which on class 1 is the prediction: 0 for a logit, 1/2 for a probability.
    """

    def __init__(self, scorer: nn.Module, tie: float):
        super().__init__()
        self.scorer, self.tie = scorer, tie

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, 2)."""
        score = self.scorer(x).reshape(len(x), 1)
        return torch.cat([torch.full_like(score, self.tie), score], 1)


def two_classes(network: Network, module: TwoClasses | None = None) -> Network:
    """A network with one output, read of a module, as one with the outputs 0 and what it was.

    Both lie behind the network's final sigmoid, if it has one. module: the `TwoClasses` of the network's module, made
    here unless it is given. Raises InputError where something else than a sigmoid is behind the output.
    """
    if network.dropped not in ((), ("Sigmoid",)):
        raise InputError(f"one output behind {' and '.join(network.dropped)} does not tell two classes apart")
    if module is None:
        module = TwoClasses(network.module, 0.5 if network.dropped else 0.0)
    pair = Affine((1, 2), (Term(network.output, Dense(np.array([[0.0], [1.0]]))),))
    nodes = (*network.nodes, pair)
    names = (*network.names, "two classes") if network.names else ()
    return replace(network, nodes=nodes, output=len(nodes) - 1, names=names, module=module)
