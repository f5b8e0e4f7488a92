"""What cuts an input set out of its box, as rows and columns of a program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mipverify.formulation.milp import Milp
from mipverify.specification.linear_system import LinearSystem, placed
from mipverify.specification.sets import InputSet


@dataclass(frozen=True, eq=False)
class SetColumns:
    """Where the inputs and further columns of a set's system stand in a program: `columns` (n + e,) of `total`."""

    system: LinearSystem
    columns: np.ndarray
    total: int

    def tangents(self, point: np.ndarray) -> tuple[Any, np.ndarray] | None:
        """Rows `matrix @ v >= limit` of the program that cut off a point (columns,) outside of the set; None where none
        does."""
        found = self.system.tangents(point[self.columns])
        return None if found is None else (placed(found[0], self.columns, self.total), found[1])


def confined(milp: Milp, inputs: np.ndarray, input_set: InputSet | None) -> tuple[Milp, SetColumns | None]:
    """A program with more rows and columns for what cuts the input set out of its box.

    inputs: the columns (n,) of the input. Where the rows only touch the set, what knows more of them is returned.
    """
    if input_set is None or input_set.is_box:
        return milp, None
    system = input_set.linear_system(milp.lower[inputs], milp.upper[inputs])
    columns = np.concatenate([inputs, milp.columns + np.arange(system.columns - len(inputs))])
    if len(columns) > len(inputs):
        milp = milp.with_columns(system.further_lower, system.further_upper)
    milp = milp.with_rows(placed(system.matrix, columns, milp.columns), system.lower, system.upper)
    return milp, SetColumns(system, columns, milp.columns) if system.surfaces else None
