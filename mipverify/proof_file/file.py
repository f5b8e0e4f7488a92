"""The container: a JSON header and arrays in a `.npz` file (docs/proof-format.md, section 1)."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mipverify.errors import InputError

FORMAT, VERSION = "mipverify proof", 1
TIME = (1980, 1, 1, 0, 0, 0)  # of every member: the same proof is the same file


class UnprovableError(Exception):
    """A fact that the format has no rule for; the message says which."""


@dataclass(frozen=True, eq=False)
class Proof:
    """What a proof file holds. header: JSON, which names the arrays."""

    header: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    def __repr__(self) -> str:
        size = sum(array.nbytes for array in self.arrays.values())
        return f"Proof({len(self.header.get('facts', ()))} facts, {size} bytes of evidence)"

    def to_bytes(self) -> bytes:
        """The file."""
        text = json.dumps(self.header, allow_nan=False, separators=(",", ":")).encode()
        members = {"header": np.frombuffer(text, np.uint8), **self.arrays}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in members.items():
                content = io.BytesIO()
                np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
                member = zipfile.ZipInfo(f"{name}.npy", TIME)
                archive.writestr(member, content.getvalue(), zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    def save(self, path: str | Path) -> None:
        """Write the file. Raises InputError where that cannot be done."""
        try:
            Path(path).write_bytes(self.to_bytes())
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


class Arrays:
    """The arrays of a proof as they are collected, each in its smallest type."""

    def __init__(self) -> None:
        self.found: dict[str, np.ndarray] = {}

    def add(self, array: np.ndarray) -> str:
        """The name of an array from now on; integers are stored in the smallest type that holds them."""
        array = np.asarray(array)
        if array.dtype.kind in "iu" and array.dtype != np.uint8:
            array = array.astype(_smallest(array))
        name = f"a{len(self.found)}"
        self.found[name] = array
        return name

    def packed(self, values: np.ndarray) -> dict[str, str]:
        """Rows (n,) or (n, k) of few distinct values, as a table and which of its rows each is."""
        kind, kinds = np.zeros(len(values), np.int64), 1
        for column in values.reshape(len(values), -1).T:  # faster than rows as a whole, and in the same order
            own, at = np.unique(column, return_inverse=True)
            if kinds * len(own) > 2**62:
                used, kind = np.unique(kind, return_inverse=True)
                kinds = len(used)
            kind, kinds = kind * len(own) + at, kinds * len(own)
        _, first, which = np.unique(kind, return_index=True, return_inverse=True)
        return {"table": self.add(values[first]), "which": self.add(which)}


def _smallest(array: np.ndarray) -> Any:
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    kinds = (np.uint8, np.uint16, np.uint32) if low >= 0 else (np.int8, np.int16, np.int32)
    return next((kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max), np.int64)
