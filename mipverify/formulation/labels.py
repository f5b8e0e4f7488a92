"""What the columns and rows of a network's program stand for, as names that tell layer and unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

Run: TypeAlias = tuple[str, np.ndarray]  # a label and flat units (U,): that many columns or rows, one after the other


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of the columns and the rows that `encode` makes, in order; what is added later has none.

    Columns: `input`, `layer7` (pre-activation, or value of an affine node), `relu8`, its binary `active8`, and
    `rounding7` for what a sum of coefficients may have lost. Rows: `layer7` defines a value; `above8`, `off8` and `on8`
    are y >= x, y <= u a and y <= x - l (1 - a). Numbers are those of the network's nodes, as `inspect` lists them.
    """

    columns: list[Run] = field(default_factory=list)
    rows: list[Run] = field(default_factory=list)


def names(labels: Sequence[Run], count: int, rest: str, renamed: Mapping[str, str] | None = None) -> list[str]:
    """A name, `label_unit`, for each of `count` columns or rows; those behind the last label are numbered after `rest`.

    renamed: other names of labels.
    """
    renamed = renamed or {}
    found = [f"{renamed.get(label, label)}_{unit}" for label, units in labels for unit in units.tolist()]
    return found + [f"{rest}_{k}" for k in range(count - len(found))]
