"""The proof file: a zip archive of arrays and a JSON header, none of which is believed."""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from mipverify_check.errors import RejectedError

MOST_BYTES = 2**29  # unpacked, all members together
LONGEST_HEADER = 2**26
HEADER = ("format", "version", "arithmetic", "network", "question", "cases", "sites", "facts")
# How numpy writes the header of an array of integers or floats, row-major.
_HEAD = re.compile(
    rb"\{'descr': '(\|[ui]1|<[ui][248]|<f[48])', 'fortran_order': False, 'shape': \(([\d, ]{0,80})\), \}\s*"
)


@dataclass(frozen=True)
class Proof:
    """header: the JSON object. Arrays are read when they are asked for, with what they must be."""

    header: dict[str, Any]
    archive: zipfile.ZipFile

    def array(self, name: Any, shape: tuple[int | None, ...], kind: str = "iu", limit: int | None = None) -> np.ndarray:
        """The array of that name: of `shape` (None: any size) and element kind; integers lie in [0, limit)."""
        if not isinstance(name, str) or name == "header":
            raise RejectedError("an array is missing")
        found = _array(_member(self.archive, name), name)
        if found.ndim != len(shape) or any(w not in (None, s) for w, s in zip(shape, found.shape, strict=True)):
            raise RejectedError(f"the array {name} has the shape {list(found.shape)}")
        if found.dtype.kind not in kind:
            raise RejectedError(f"the array {name} has the element type {found.dtype}")
        if found.dtype.kind == "f":
            if not np.isfinite(found).all():
                raise RejectedError(f"the array {name} holds numbers that are not finite")
            return found
        if limit is not None and found.size and not (found.min() >= 0 and int(found.max()) < limit):
            raise RejectedError(f"the array {name} holds an index out of range")
        if "f" in kind:
            if found.dtype != np.uint8:
                raise RejectedError(f"the array {name} has the element type {found.dtype}")
            return found
        return found.astype(np.int64)

    def packed(self, given: Any, size: int, columns: int = 0, kind: str = "f") -> np.ndarray:
        """A packed array of `size` rows: (size,), or (size, columns)."""
        parts = record(given, ("table", "which"))
        table = self.array(parts["table"], (None, columns) if columns else (None,), kind)
        which = self.array(parts["which"], (size,), "iu", len(table))
        return np.asarray(table[which])


def opened(data: bytes) -> Proof:
    """The proof in the bytes of a file. Raises RejectedError."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, EOFError) as error:
        raise RejectedError(f"it is no proof file: {error}") from None
    if sum(m.file_size for m in members) > MOST_BYTES or len(members) > 2**20:
        raise RejectedError(f"it is larger than {MOST_BYTES} bytes")
    if len({m.filename for m in members}) != len(members):
        raise RejectedError("two members have one name")
    try:
        text = _array(_member(archive, "header"), "header").tobytes()
        header = json.loads(text[:LONGEST_HEADER].decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError, MemoryError) as error:
        raise RejectedError(f"its header cannot be read: {error}") from None
    if not isinstance(header, dict):
        raise RejectedError("its header is no object")
    record(header, HEADER)
    known = header.get("format") == "mipverify proof" and header.get("version") == 1
    if not known or header.get("arithmetic") not in ("real", "float32"):
        raise RejectedError("its format, version or arithmetic is not known")
    named = set(_strings(header))
    for member in members:
        if member.filename.removesuffix(".npy") not in named | {"header"}:
            raise RejectedError(f"its header does not name {member.filename!r}")
    return Proof(header, archive)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _strings(item: Any) -> list[str]:
    found, pending = [], [item]
    while pending:
        now = pending.pop()
        if isinstance(now, str):
            found.append(now)
        elif isinstance(now, dict):
            pending += now.values()
        elif isinstance(now, list):
            pending += now
    return found


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(f"{name}.npy")
    except Exception as error:  # noqa: BLE001  # zlib, struct and zipfile raise what they do on damaged data
        raise RejectedError(f"the array {name[:80]} cannot be read: {error}") from None


def _array(data: bytes, name: str) -> np.ndarray:
    """The array of an .npy file, checked against its length before anything is allocated."""
    size = int.from_bytes(data[8:10], "little")
    head = _HEAD.fullmatch(data[10 : 10 + size])
    if data[:8] != b"\x93NUMPY\x01\x00" or head is None:
        raise RejectedError(f"the array {name[:80]} is of a kind that is not supported")
    kind, shape = np.dtype(head[1].decode()), [int(v) for v in re.findall(rb"\d+", head[2])]
    count, body = math.prod(shape), data[10 + size :]
    if len(shape) > 4 or count * kind.itemsize != len(body) or math.prod(max(1, v) for v in shape) > MOST_BYTES:
        raise RejectedError(f"the array {name[:80]} has {len(body)} bytes")
    return np.frombuffer(body, kind).reshape(shape)


def record(given: Any, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """A JSON object that has all of `required`, and nothing but these and `optional`."""
    if not isinstance(given, dict) or not set(required) <= set(given) <= {*required, *optional}:
        raise RejectedError(f"an object with {', '.join(required)} was expected")
    return given


def integer(given: Any, limit: int) -> int:
    """An integer in [0, limit)."""
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given < limit:
        raise RejectedError(f"a number below {limit} was expected")
    return given


def entries(given: Any) -> list[Any]:
    """A JSON list."""
    if not isinstance(given, list):
        raise RejectedError("a list was expected")
    return given


def rational(given: Any) -> Fraction:
    """An exact number in a string: a decimal or a quotient of integers."""
    if not isinstance(given, str) or len(given) > 5000:
        raise RejectedError("an exact number was expected")
    try:
        exponent = given.lower().partition("e")[2]
        if exponent and abs(int(exponent)) > 5000:
            raise ValueError
        return Fraction(given)
    except (ValueError, ZeroDivisionError):
        raise RejectedError(f"{given[:80]!r} is no number") from None
