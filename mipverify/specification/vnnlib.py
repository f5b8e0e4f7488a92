"""Property files: VNN-LIB 1 or 2, told apart by their content."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

from mipverify.specification.files import decoded, read_file
from mipverify.specification.specification import Specification
from mipverify.specification.vnnlib1 import parse_vnnlib1


@contextmanager
def _many_objects() -> Iterator[None]:
    """Put off the search for garbage: a long property is millions of objects, none of which is any."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


_VERSION_2 = re.compile(r"^[^;\n]*\(\s*(?:vnnlib-version|declare-network)\b", re.MULTILINE)


def load_vnnlib(path: str | PathLike[str]) -> Specification:
    """Read a VNN-LIB file, version 1 or 2, gzip-compressed or not.

    Bounds on single inputs become boxes; disjunctions over inputs become several cases; everything else becomes
    conditions. Inputs and outputs of version 2 are flattened in row-major order.

    Raises:
        InputError: the file cannot be read, is no VNN-LIB, uses what is not supported, or cannot be violated by any
            input; the message names the file and, where there is one, the line.
    """
    content, digest = read_file(path)
    with _many_objects():
        return _read(content, str(path), digest)


def _read(content: bytes, path: str, digest: str) -> Specification:
    text = decoded(content, path)
    if _VERSION_2.search(text) is None:
        return Specification(parse_vnnlib1(text, path), "vnnlib", path, digest)
    from mipverify.specification.vnnlib2 import parse_vnnlib2  # the official parser loads a native library

    cases, declarations = parse_vnnlib2(text, path)
    return Specification(cases, "vnnlib", path, digest, declarations)
