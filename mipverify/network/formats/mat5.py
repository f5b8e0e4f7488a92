"""Numeric arrays out of MATLAB files of version 5 (MAT-File Format, MathWorks): full, sparse, and in structures.

scipy.io.loadmat reads more, but in native code that ends the process on some damaged files; here every damage is a
ValueError.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

LARGEST = 2**31  # bytes that one compressed variable may unpack to

# Element types of table 1-1, without byte order; 14 is an array, 15 a compressed element.
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _SPARSE = 2, 5  # array classes of table 1-3; 6 to 15 are numeric
_COMPLEX = 0x0800


@dataclass(frozen=True)
class _Element:
    kind: int
    data: memoryview


class _Reader:
    """Reads elements in one byte order."""

    def __init__(self, order: str):
        self.order = order

    def elements(self, data: memoryview) -> Iterator[_Element]:
        """The elements that follow one another in `data`, compressed ones unpacked."""
        place = 0
        while place < len(data):
            words = self.numbers("u4", data[place : place + 8])
            if len(words) < 1:
                raise ValueError("ends inside a tag")
            if words[0] >> 16:  # up to 4 bytes stand in the tag itself
                kind, size, start, step = int(words[0] & 0xFFFF), int(words[0] >> 16), place + 4, 8
            else:
                if len(words) < 2:
                    raise ValueError("ends inside a tag")
                kind, size, start = int(words[0]), int(words[1]), place + 8
                step = 8 + size if kind == _COMPRESSED else 8 + size + -size % 8
            if start + size > len(data) or (start == place + 4 and size > 4):
                raise ValueError("ends inside an element")
            content = data[start : start + size]
            if kind == _COMPRESSED:
                yield from self.elements(_unpacked(content))
            else:
                yield _Element(kind, content)
            place += step

    def numbers(self, kind: str, data: memoryview) -> np.ndarray:
        """As many whole numbers of type `kind` as `data` holds."""
        item = np.dtype(self.order + kind)
        return np.frombuffer(data[: len(data) // item.itemsize * item.itemsize], item)

    def values(self, element: _Element) -> np.ndarray:
        """The numbers of an element that holds numbers."""
        if element.kind not in _NUMBERS:
            raise ValueError(f"numbers expected, element type {element.kind} found")
        return self.numbers(_NUMBERS[element.kind], element.data)

    def arrays(self, element: _Element, name: str | None = None) -> Iterator[tuple[str, np.ndarray]]:
        """The numeric arrays in an array element, fields of a structure as `structure/field`; other kinds give none."""
        parts = self.elements(element.data)
        flags, sizes, given = self.values(_next(parts)), self.values(_next(parts)), _next(parts)
        if len(flags) < 2 or len(sizes) < 2 or (sizes < 0).any():
            raise ValueError("an array without a class or a shape")
        shape, kind = tuple(int(size) for size in sizes), int(flags[0]) & 0xFF
        name = bytes(given.data).decode("latin-1") if name is None else name
        if kind == _STRUCT and math.prod(shape) == 1:
            width = self.values(_next(parts))
            fields = bytes(_next(parts).data)
            if len(width) != 1 or width[0] < 1:
                raise ValueError("a structure without fields")
            for start in range(0, len(fields), int(width[0])):
                field = fields[start : start + int(width[0])].split(b"\0")[0].decode("latin-1")
                yield from self.arrays(_matrix(_next(parts)), f"{name}/{field}")
        elif (6 <= kind <= 15 or kind == _SPARSE) and int(flags[0]) & _COMPLEX:
            raise ValueError(f"array {name!r} is complex")
        elif kind == _SPARSE:
            yield name, self._sparse(parts, shape)
        elif 6 <= kind <= 15:
            entries = self.values(_next(parts)).astype(np.float64)
            if len(entries) != math.prod(shape):
                raise ValueError(f"array {name!r} has {len(entries)} entries for a shape {list(shape)}")
            yield name, entries.reshape(shape, order="F")

    def _sparse(self, parts: Iterator[_Element], shape: tuple[int, ...]) -> np.ndarray:
        rows, starts, entries = (self.values(_next(parts)) for _ in range(3))
        ends = starts.astype(np.int64)
        counts = ends[1:] - ends[:-1]
        used = int(starts[-1]) if len(starts) else 0
        if len(shape) != 2 or len(counts) != shape[1] or (counts < 0).any() or starts[0] != 0:
            raise ValueError("a sparse array whose columns do not fit its shape")
        if not 0 <= used <= min(len(rows), len(entries)) or math.prod(shape) * 8 > LARGEST:
            raise ValueError("a sparse array whose entries do not fit its shape")
        if used and not 0 <= rows[:used].min() <= rows[:used].max() < shape[0]:
            raise ValueError("a sparse array with an entry outside of its shape")
        full = np.zeros(shape)
        full[rows[:used].astype(np.int64), np.repeat(np.arange(shape[1]), counts)] = entries[:used]
        return full


def read_mat5(data: bytes) -> dict[str, np.ndarray]:
    """All real arrays of a MATLAB 5 file as float64, by name. Raises ValueError where it cannot be read."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or data[:4].count(0):
        raise ValueError("it has no header of version 5")
    reader = _Reader(order)
    arrays: dict[str, np.ndarray] = {}
    for element in reader.elements(memoryview(data)[128:]):
        if element.kind == _MATRIX:
            arrays.update(reader.arrays(element))
    return arrays


def _next(parts: Iterator[_Element]) -> _Element:
    element = next(parts, None)
    if element is None:
        raise ValueError("an array ends early")
    return element


def _matrix(element: _Element) -> _Element:
    if element.kind != _MATRIX:
        raise ValueError("an array expected")
    return element


def _unpacked(data: memoryview) -> memoryview:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(data, LARGEST)
    except zlib.error as error:
        raise ValueError(f"a variable cannot be unpacked: {error}") from None
    if not unpacker.eof:
        raise ValueError("a compressed variable ends early, or is too large")
    return memoryview(content)
