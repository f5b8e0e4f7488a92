"""Networks of a property, as one argument or one column of a file: a path, or a list of names and paths."""

from __future__ import annotations

import ast

from mipverify.errors import InputError

_LONGEST = 200  # characters of what is wrong


def network_files(field: str) -> list[tuple[str, str]]:
    """Names and paths of networks: one path without a name, or VNN-COMP's list `[('f', 'a.onnx'), ('g', 'b.onnx')]`."""
    text = field.strip()
    if not text.startswith("["):
        return [("", text)]
    try:
        parsed = ast.literal_eval(text)
        pairs = [(str(name), str(path)) for name, path in parsed]
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise InputError(f"networks must be a list of ('name', 'path'), not {text[:_LONGEST]!r}") from None
    names = [name for name, _ in pairs]
    if not pairs or len(set(names)) < len(names) or "" in names:
        raise InputError(f"networks must have names, each another one: {text[:_LONGEST]!r}")
    return pairs
