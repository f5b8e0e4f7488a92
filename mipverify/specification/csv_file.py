"""Labelled samples in a CSV file: one a line, the label first, below a header or without one."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipverify.errors import InputError
from mipverify.specification.exact import shorten
from mipverify.specification.files import decoded, read_file

_LABELS = ("label", "labels", "class", "target", "y")
_CERTAIN = 10  # columns from which on 0,1,2,... is nobody's sample


def read_csv(path: Path) -> tuple[NDArray[Any], NDArray[Any], str]:
    """Samples (N, n), int64 where all are whole numbers and float32 else, their labels (N,), and the file's SHA-256.

    A first line that counts the columns (which pandas writes for data without names) or that is made of names is a
    header. Raises InputError where it may be either, and for what is no table of numbers.
    """
    content, digest = read_file(path)
    text = decoded(content, str(path))
    first = next((line for line in text.splitlines() if line.strip()), "").strip()
    header = not _is_number(first.split(",", 1)[0])
    if header:
        _refuse_other_orders(first, path)
        _refuse_samples(first, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # no data: reported below
            table = np.loadtxt(io.StringIO(text), delimiter=",", skiprows=int(header), ndmin=2, comments=None)
    except ValueError as error:
        raise InputError(f"{path}: not a table of numbers: {shorten(' '.join(str(error).split()), 160)}") from None
    if not header and table.size and table.shape[1] > 1 and _is_header(first, table, path):
        table = table[1:]
    if table.size == 0 or table.shape[1] < 2:
        raise InputError(f"{path}: no line with a label and pixels, separated by commas")
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        raise InputError(f"{path}: image {row} has a value that is not finite")
    labels, values = table[:, 0], table[:, 1:]
    whole = bool((values == np.floor(values)).all()) and float(np.abs(values).max()) < 2**53
    return values.astype(np.int64 if whole else np.float32), labels, digest


def _refuse_other_orders(first: str, path: Path) -> None:
    """A header whose names say that the first column is not the label."""
    names = [name.strip().strip("\"'").lower() for name in first.split(",")]
    if not names[0] and len(names) > 1:
        raise InputError(f"{path}: the first column has no name, as if it held row numbers: the label must come first")
    stated = [name for name in names[1:] if name in _LABELS]
    if stated and names[0] not in _LABELS:
        raise InputError(f"{path}: the first column is {shorten(names[0])!r}: the label must come first")


def _refuse_samples(first: str, path: Path) -> None:
    """A first line whose label is a word, but whose other cells are no names, nor numbers of columns."""
    cells = [cell.strip().strip("\"'") for cell in first.split(",")]
    if len(cells) > 1 and all(map(_is_number, cells[1:])) and not all(cell.isdigit() for cell in cells[1:]):
        raise InputError(
            f"{path}: the first line ({shorten(first)}) may be a header or a sample: labels are whole numbers from 0"
        )


def _is_header(first: str, table: NDArray[np.float64], path: Path) -> bool:
    """Whether a first line of numbers is a header; `table` is the file with that line."""
    cells = [cell.strip() for cell in first.split(",")]
    rest = table[1:]
    others_whole = bool((rest == np.floor(rest)).all()) if rest.size else True
    counts = bool((np.diff(table[0]) == 1).all()) and table[0, 0] in (0, 1)
    as_written = all(cell.isdigit() for cell in cells)  # as pandas writes numbers of columns
    if counts and rest.size and (len(cells) >= _CERTAIN or (as_written and not others_whole)):
        return True
    # pandas names repeated columns 0, 0.1, 0.2, ...: what it makes of a first sample that it took for names.
    repeated = [cell.partition(".")[0] for cell in cells if "." in cell]
    mangled = len(set(cells)) == len(cells) and bool(repeated) and set(repeated) <= set(cells)
    if counts or (mangled and others_whole and len(rest) > 0):
        raise InputError(
            f"{path}: the first line ({shorten(first)}) may be a header or a sample: give names to the columns "
            "(label,a,b,...) or leave the header out"
        )
    return False


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
