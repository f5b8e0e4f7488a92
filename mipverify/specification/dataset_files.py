"""How images and labels lie in .npz, IDX and CSV files."""

from __future__ import annotations

import io
import lzma
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipverify.errors import InputError
from mipverify.specification.exact import shorten
from mipverify.specification.files import LARGEST_RATIO, SMALLEST_BOMB, read_file

_IDX_UBYTE = 0x08
_MOST_AXES = 8

Arrays = tuple[NDArray[Any], NDArray[Any], str]  # images, labels, and the SHA-256 of the file that holds the images


def read_npz(path: Path) -> Arrays:
    """`images` and `labels` of a NumPy archive, compressed or not; pickled objects are refused unread."""
    content, digest = read_file(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            for key in ("images", "labels"):
                if key not in names:
                    found = ", ".join(names[:20]) or "nothing"
                    raise InputError(f"{path}: no array {key!r}; found {shorten(found, 200)}")
            return _member(archive, "images", path), _member(archive, "labels", path), digest
    except _DAMAGED as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged .npz file: {shorten(' '.join(str(error).split()), 160)}") from None


_DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
)


def _member(archive: zipfile.ZipFile, key: str, path: Path) -> NDArray[Any]:
    """One array, read only if its header says as much as is there, and no absurd amount of it."""
    info = archive.getinfo(f"{key}.npy")
    if info.file_size > max(SMALLEST_BOMB, LARGEST_RATIO * info.compress_size):
        raise InputError(
            f"{path}: array {key!r} expands from {info.compress_size:,} to {info.file_size:,} bytes: save it "
            "uncompressed if it is meant so"
        )
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = {1: np.lib.format.read_array_header_1_0}.get(version[0], np.lib.format.read_array_header_2_0)
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            raise InputError(f"{path}: array {key!r} holds pickled objects, which are not read: save it as numbers")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != info.file_size - file.tell():
            raise InputError(f"{path}: array {key!r} says shape {shape}, {size} bytes, and holds another number")
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def read_idx(path: Path) -> Arrays:
    """An images file and the labels file that lies beside it, compressed or not."""
    places = labels_beside(path)
    if not places:
        raise InputError(f"{path}: name the images file (…-images-idx3-ubyte), not the labels")
    for place in places:
        if place.exists():
            images, digest = _idx_array(path)
            return images, _idx_array(place)[0], digest
    raise InputError(f"{path}: the labels file {places[0].name} is not beside it")


def labels_beside(path: Path) -> tuple[Path, ...]:
    """Where the labels of an IDX file of images may lie, compressed or not; nowhere for any other name."""
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if labels == path:
        return ()
    bare = labels.with_name(labels.name.removesuffix(".gz"))
    return labels, bare, bare.with_name(bare.name + ".gz")


def _idx_array(path: Path) -> tuple[NDArray[np.uint8], str]:
    content, digest = read_file(path)
    if len(content) < 4 or content[:2] != b"\0\0":
        raise InputError(f"{path}: not an IDX file")
    kind, dimensions = content[2], content[3]
    if kind != _IDX_UBYTE:
        raise InputError(f"{path}: IDX data of type 0x{kind:02x}; only unsigned bytes (0x08) are read")
    start = 4 + 4 * dimensions
    if not 0 < dimensions <= _MOST_AXES or len(content) < start:
        raise InputError(f"{path}: damaged IDX header: {dimensions} axes")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
    expected = int(np.prod(shape, dtype=object))
    if len(content) - start != expected:
        raise InputError(f"{path}: {expected} bytes expected for shape {shape}, {len(content) - start} found")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape), digest
