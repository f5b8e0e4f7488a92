"""Files as bytes: compressed or not, with one-line errors."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import zlib
from os import PathLike
from pathlib import Path

from mipverify.errors import InputError

_GZIP_MAGIC = b"\x1f\x8b"


# A gzip file may hold a thousand times its size; what people compress shrinks by less than a hundred.
LARGEST_RATIO = 200
SMALLEST_BOMB = 128 * 2**20
_CHUNK = 2**20


def read_file(path: str | PathLike[str]) -> tuple[bytes, str]:
    """The content of a file, decompressed when it is a gzip file, and the SHA-256 of the file as it is on disk.

    Raises:
        InputError: the file cannot be read, or its compressed content is damaged or expands absurdly.
    """
    if not isinstance(path, str | PathLike):
        raise InputError(f"the path of a file is needed, not {type(path).__name__}")
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    digest = hashlib.sha256(raw).hexdigest()
    if raw.startswith(_GZIP_MAGIC):
        try:
            raw = _unpacked(raw, path)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: damaged gzip file: {error}") from None
    return raw, digest


def _unpacked(raw: bytes, path: str | PathLike[str]) -> bytes:
    most = max(SMALLEST_BOMB, LARGEST_RATIO * len(raw))
    parts, size = [], 0
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
        while part := file.read(_CHUNK):
            parts.append(part)
            size += len(part)
            if size > most:
                raise InputError(
                    f"{path}: {len(raw):,} bytes that expand to more than {most:,}: unpack the file if it is meant so"
                )
    return b"".join(parts)


def decoded(content: bytes, path: str) -> str:
    """A text file's content: UTF-8, or Latin-1 where it is none. Raises InputError for UTF-16 and for binary files."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{path}: not a text file in UTF-8: it begins like UTF-16; save it as UTF-8")
    nul = content.find(b"\0")
    if nul >= 0:
        line = content.count(b"\n", 0, nul) + 1
        raise InputError(f"{path}, line {line}: not a text file: it holds a NUL byte")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")
