"""Programs as files that every solver reads: free MPS, and the LP format of CPLEX.

Written here because the libraries at hand round: PuLP to twelve digits, HiGHS to fifteen. Bounds and coefficients are
proven for the numbers that they are, so all digits are kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy

from mipverify.formulation.program import Program, one_sided

OBJECTIVE = "objective"
SENSES = {"=": "E", ">=": "G", "<=": "L"}


def mps(program: Program) -> str:
    """The program in free MPS format; integer columns lie between markers."""
    return "\n".join(_mps(program)) + "\n"


def lp(program: Program) -> str:
    """The program in LP format, one term on each line."""
    return "\n".join(_lp(program)) + "\n"


FORMATS = {".mps": mps, ".lp": lp}  # by the end of a file's name


def _mps(program: Program) -> Iterator[str]:
    milp, rows = program.milp, list(one_sided(program.milp, program.rows))
    yield from ("NAME mipverify", "ROWS", f" N {OBJECTIVE}")
    yield from (f" {SENSES[row.sense]} {row.name}" for row in rows)
    yield "COLUMNS"
    sizes = [len(row.columns) for row in rows]
    at = np.concatenate([np.zeros(0, int), *(row.columns for row in rows)])
    data = np.concatenate([np.zeros(0), *(row.values for row in rows)])
    matrix = scipy.sparse.csc_array(
        (data, (np.repeat(np.arange(len(rows)), sizes), at)), shape=(len(rows), milp.columns)
    )
    inside = False
    for j, name in enumerate(program.columns):
        if milp.integer[j] != inside:
            inside = not inside
            yield f" MARKER 'MARKER' '{'INTORG' if inside else 'INTEND'}'"
        yield f" {name} {OBJECTIVE} {_number(milp.objective[j])}"  # also where it is zero: no column may be missing
        span = slice(matrix.indptr[j], matrix.indptr[j + 1])
        for i, value in zip(matrix.indices[span], matrix.data[span], strict=True):
            yield f" {name} {rows[i].name} {_number(value)}"
    if inside:
        yield " MARKER 'MARKER' 'INTEND'"
    yield "RHS"
    yield from (f" RHS {row.name} {_number(row.limit)}" for row in rows if row.limit)
    yield "BOUNDS"
    for name, low, high in zip(program.columns, milp.lower, milp.upper, strict=True):
        yield f" MI BND {name}" if np.isneginf(low) else f" LO BND {name} {_number(low)}"
        yield f" PL BND {name}" if np.isposinf(high) else f" UP BND {name} {_number(high)}"
    yield "ENDATA"


def _lp(program: Program) -> Iterator[str]:
    milp, columns = program.milp, program.columns
    yield from ("Minimize", f" {OBJECTIVE}:")
    yield from _terms(columns, np.flatnonzero(milp.objective), milp.objective[milp.objective != 0])
    yield "Subject To"
    for row in one_sided(milp, program.rows):
        yield f" {row.name}:"
        yield from _terms(columns, row.columns, row.values)
        yield f"  {row.sense} {_number(row.limit)}"
    yield "Bounds"
    for name, low, high in zip(columns, milp.lower, milp.upper, strict=True):
        yield f" {_number(low)} <= {name} <= {_number(high)}"
    if milp.integer.any():
        yield "Generals"
        yield from (f" {columns[j]}" for j in np.flatnonzero(milp.integer))
    yield "End"


def _terms(columns: list[str], indices: np.ndarray, values: np.ndarray) -> Iterator[str]:
    if not len(indices):
        yield f"  0 {columns[0]}"  # the format knows no empty sum
    for j, value in zip(indices, values, strict=True):
        yield f"  {'-' if value < 0 else '+'} {_number(abs(value))} {columns[j]}"


def _number(value: float) -> str:
    """The shortest decimal that means this float."""
    return repr(float(value))
