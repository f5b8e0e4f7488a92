"""How images and labels lie in .npz, IDX and CSV files."""

from __future__ import annotations

import io
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipverify.errors import InputError
from mipverify.specification.files import read_file

_IDX_UBYTE = 0x08

Arrays = tuple[NDArray[Any], NDArray[Any], str]  # images, labels, and the SHA-256 of the file that holds the images


def read_npz(path: Path) -> Arrays:
    """`images` and `labels` of a NumPy archive, compressed or not; pickled objects are refused."""
    content, digest = read_file(path)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            missing = [key for key in ("images", "labels") if key not in archive]
            if missing:
                found = ", ".join(archive.files) or "nothing"
                raise InputError(f"{path}: no array {missing[0]!r}; found {found}")
            return archive["images"], archive["labels"], digest
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged .npz file: {error}") from None


def read_idx(path: Path) -> Arrays:
    """An images file and the labels file that lies beside it, compressed or not."""
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if labels == path:
        raise InputError(f"{path}: name the images file (…-images-idx3-ubyte), not the labels")
    bare = labels.with_name(labels.name.removesuffix(".gz"))
    for place in (labels, bare, bare.with_name(bare.name + ".gz")):
        if place.exists():
            images, digest = _idx_array(path)
            return images, _idx_array(place)[0], digest
    raise InputError(f"{path}: the labels file {labels.name} is not beside it")


def _idx_array(path: Path) -> tuple[NDArray[np.uint8], str]:
    content, digest = read_file(path)
    if len(content) < 4 or content[:2] != b"\0\0":
        raise InputError(f"{path}: not an IDX file")
    kind, dimensions = content[2], content[3]
    if kind != _IDX_UBYTE:
        raise InputError(f"{path}: IDX data of type 0x{kind:02x}; only unsigned bytes (0x08) are read")
    start = 4 + 4 * dimensions
    if dimensions == 0 or len(content) < start:
        raise InputError(f"{path}: damaged IDX header")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
    expected = int(np.prod(shape, dtype=object))
    if len(content) - start != expected:
        raise InputError(f"{path}: {expected} bytes expected for shape {shape}, {len(content) - start} found")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape), digest


def read_csv(path: Path) -> Arrays:
    """One image a line, the label first; a first line of words is a header."""
    content, digest = read_file(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file: byte {error.start} is no UTF-8") from None
    first = next((line for line in text.splitlines() if line.strip()), "")
    skip = 0 if _is_number(first.split(",")[0]) else 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # no data: reported below
            table = np.loadtxt(io.StringIO(text), delimiter=",", skiprows=skip, ndmin=2, comments=None)
    except ValueError as error:
        raise InputError(f"{path}: not a table of numbers: {error}") from None
    if table.size == 0 or table.shape[1] < 2:
        raise InputError(f"{path}: no line with a label and pixels")
    labels, pixels = table[:, 0], table[:, 1:]
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        raise InputError(f"{path}: image {row} has a value that is not finite")
    grey_levels = pixels.max() > 1 and pixels.min() >= 0 and pixels.max() <= 255 and (pixels == np.floor(pixels)).all()
    return pixels.astype(np.uint8 if grey_levels else np.float32), labels, digest


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
