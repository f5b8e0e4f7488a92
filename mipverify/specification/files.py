"""Files as bytes: compressed or not, with one-line errors."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from os import PathLike
from pathlib import Path

from mipverify.errors import InputError

_GZIP_MAGIC = b"\x1f\x8b"


def read_file(path: str | PathLike[str]) -> tuple[bytes, str]:
    """The content of a file, decompressed when it is a gzip file, and the SHA-256 of the file as it is on disk.

    Raises:
        InputError: the file cannot be read or its compressed content is damaged.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    digest = hashlib.sha256(raw).hexdigest()
    if raw.startswith(_GZIP_MAGIC):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: damaged gzip file: {error}") from None
    return raw, digest
