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


def load_vnnlib(path: str | PathLike[str], *, assumed: float | None = None) -> Specification:
    """Read a VNN-LIB file, version 1 or 2, gzip-compressed or not.

    Bounds on single inputs become boxes; disjunctions over inputs become several cases; everything else becomes
    conditions. Inputs and outputs of version 2 are flattened in row-major order.

    assumed: a magnitude that stands in for bounds which inputs do not have. Of such a property no proof is a proof:
    `mipverify.verify` never says that it holds (`Specification.assumed`).

    Raises:
        InputError: the file cannot be read, is no VNN-LIB, uses what is not supported, or cannot be violated by any
            input; the message names the file and, where there is one, the line.
    """
    content, digest = read_file(path)
    with _many_objects():
        return _read(content, str(path), digest, assumed)


def _read(content: bytes, path: str, digest: str, assumed: float | None) -> Specification:
    text = decoded(content, path)
    if _VERSION_2.search(text) is None:
        return Specification(parse_vnnlib1(text, path, assumed), "vnnlib", path, digest, assumed=assumed)
    from mipverify.specification.vnnlib2 import parse_vnnlib2  # the official parser loads a native library

    cases, declarations = parse_vnnlib2(text, path, assumed)
    return Specification(cases, "vnnlib", path, digest, declarations, assumed=assumed)
