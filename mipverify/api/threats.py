"""Threats beyond balls, asked about the inputs of a batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mipverify.api.questions import Batch
from mipverify.engine.threats.distance import distance_of_threat
from mipverify.engine.threats.parse import parse_threat
from mipverify.engine.threats.sample import Sample
from mipverify.errors import InputError
from mipverify.specification.robustness import target_list


def distances_of_threat(
    asked: Batch, text: str, domain: Any, *, norm: str, targets: Iterable[int] | None, **how: Any
) -> Any:
    """The distance of each input of a batch; one alone for one input. text: as `parse_threat` reads it.

    Raises InputError where the threat does not fit the inputs.
    """
    threat, wanted = parse_threat(text), None if targets is None else tuple(target_list(targets))

    def other(index: int) -> Any:
        if index >= len(asked.x):
            raise InputError(f"threat {threat.text}: there is no image {index}: x holds {len(asked.x)}")
        return asked.x[index]

    found = tuple(
        distance_of_threat(
            asked.network,
            threat,
            Sample(x, int(y), None, norm, domain, asked.mean, asked.std, wanted, x.shape, other),
            **how,
        )
        for x, y in zip(asked.x, asked.labels, strict=True)
    )
    return found[0] if asked.single else found
