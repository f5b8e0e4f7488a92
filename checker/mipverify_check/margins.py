"""A network with the margins of a case's conditions at its end: each is the largest of the condition's rows."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from mipverify_check.builder import Builder
from mipverify_check.errors import RejectedError
from mipverify_check.network import Network, Tensor
from mipverify_check.question import Case


def with_margins(network: Network, case: Case) -> tuple[Network, Tensor]:
    """The network and the tensor of margins, one for each condition; its ReLUs belong to the tensor "", behind others.

    All conditions are halved together: of each that has several values left, neighbours are paired by
    max(a, b) = b + relu(a - b), and an odd last one goes on behind the winners.
    """
    arithmetic = network.arithmetic
    builder = Builder(arithmetic, list(network.nodes))
    rows = [terms for condition in case.terms for terms in condition]
    size, outputs = network.nodes[0].size, network.output.size
    if len(rows) * (size + outputs) > 2**25:
        raise RejectedError("the conditions of a case need too much memory")
    weights = arithmetic.zeros((2, len(rows), max(size, outputs)))
    offsets = arithmetic.zeros((len(rows),))
    for i, found in enumerate(rows):
        for variable, value in ((k, v) for k, v in found.items() if k is not None):
            held = arithmetic.below(value)
            if not arithmetic.finite(held) or (value and abs(held) < 2.0**-900):
                raise RejectedError("a coefficient of a condition is out of range")
            weights[(0, i, variable) if variable >= 0 else (1, i, -1 - variable)] = held
        offsets[i] = arithmetic.below(found.get(None, Fraction(0)))
    terms = []
    for place, x in ((1, network.output), (0, Tensor(0, (size,)))):
        used = weights[place, :, : x.size]
        if used.any():
            terms.append((x, builder.product(x, used[None], np.arange(x.size).reshape(1, -1, 1), 1)))
    margins = builder.affine((len(rows),), terms, offsets)
    groups, at = [], 0
    for condition in case.conditions:
        groups.append(list(range(at, at + len(condition))))
        at += len(condition)
    while any(len(group) > 1 for group in groups):
        pairs = [(g[i], g[i + 1]) for g in groups for i in range(0, len(g) - 1, 2)]
        first, second = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
        a, b = (builder.gather(margins, index, (len(pairs),)) for index in (first, second))
        ahead = builder.relu(builder.sum([(a, 1), (b, -1)]))
        kept: list[int] = []
        gains: list[int] = []
        following: list[list[int]] = []
        won = 0
        for group in groups:
            winners = len(group) // 2
            rest = group[2 * winners :]
            following.append(list(range(len(kept), len(kept) + winners + len(rest))))
            kept += group[1 : 2 * winners : 2] + rest
            gains += list(range(won, won + winners)) + [-1] * len(rest)
            won += winners
        base = builder.gather(margins, np.array(kept), (len(kept),))
        margins = builder.sum([(base, 1), (builder.gather(ahead, np.array(gains), (len(kept),)), 1)])
        groups = following
    extended = replace(
        network, nodes=builder.nodes, relus={**network.relus, "": [*network.relus.get("", ()), *builder.made]}
    )
    return extended, margins
