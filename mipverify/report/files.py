"""Files of a run: written whole or not at all, inside its folder, never over what the run reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mipverify.errors import InputError

if TYPE_CHECKING:
    from mipverify.network import Network


class Replacing:
    """Writes a file (of text, if not `binary`) beside `path` and moves it there when the block ends without an error.

    Where `path` is a link, the link is replaced, not what it points to.
    """

    def __init__(self, path: Path, *, binary: bool = False):
        self._path, self._binary = path, binary
        self._partial = path.with_name(path.name + ".partial")

    def __enter__(self) -> IO[Any]:
        self._partial.unlink(missing_ok=True)  # left by a run that was killed, or a link to somewhere else
        opened = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._file: IO[Any] = (
            os.fdopen(opened, "wb") if self._binary else os.fdopen(opened, "w", encoding="utf-8", newline="")
        )
        return self._file

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            with self._file:
                if kind is None:
                    self._file.flush()
                    os.fsync(self._file.fileno())
            if kind is None:
                self._partial.replace(self._path)
        finally:
            self._partial.unlink(missing_ok=True)


def inputs_of(network: Network, data: str | None = None) -> tuple[str, ...]:
    """The files that a network and a data set were read from, other files with weights and labels included."""
    from mipverify.specification.dataset_files import labels_beside

    files: tuple[str, ...] = () if network.path is None else (network.path,)
    files += () if network.file is None else network.file.others
    return files if data is None else (*files, data, *map(str, labels_beside(Path(data))))


def refuse_links(directory: Path, names: Iterable[str]) -> None:
    """Raise InputError where one of the files that will be opened in a run's folder is something else than a file."""
    for name in names:
        path = directory / name
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise InputError(f"--out {directory}: {name} is there, but not as a plain file of this folder")


def refuse_overwriting(outputs: Iterable[tuple[str, Path]], inputs: Iterable[Path | str | None]) -> None:
    """Raise InputError where an output (what to call it, its path) is one of the files that are read."""
    read = [(str(path), stat) for path in inputs if path is not None and (stat := _identity(path)) is not None]
    for name, path in outputs:
        for source, identity in read:
            if _identity(path) == identity:
                raise InputError(f"{name} {path}: would overwrite the input {source}")


def _identity(path: Path | str) -> tuple[int, int] | None:
    """What is the same for all names of a file; None where there is none."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
