"""Property files: VNN-LIB 1 or 2, told apart by their content."""

from __future__ import annotations

import re
from os import PathLike

from mipverify.specification.files import decoded, read_file
from mipverify.specification.specification import Specification
from mipverify.specification.vnnlib1 import parse_vnnlib1

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
    text = decoded(content, str(path))
    if _VERSION_2.search(text) is None:
        return Specification(parse_vnnlib1(text, str(path)), "vnnlib", str(path), digest)
    from mipverify.specification.vnnlib2 import parse_vnnlib2  # the official parser loads a native library

    cases, declared = parse_vnnlib2(text, str(path))
    return Specification(cases, "vnnlib", str(path), digest, declared)
