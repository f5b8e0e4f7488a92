"""Files that a command writes beside what it prints: checked before any work, never one that it reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from mipverify.errors import InputError, MipverifyError


def check_outputs(outputs: dict[str, str | None], inputs: Iterable[str | None]) -> None:
    """Refuse, without touching them, output files that cannot be written, are given twice, or are among the inputs.

    outputs: by option, the path or None. inputs: paths of files that are read, None for those that are not given.
    """
    from mipverify.report.files import refuse_overwriting

    given = {option: path for option, path in outputs.items() if path is not None}
    for option, path in given.items():
        _check(option, path)
    refuse_overwriting([(option, Path(path)) for option, path in given.items()], inputs)
    places = [os.path.realpath(path) for path in given.values()]
    if len(set(places)) < len(places) and all(_plain(Path(path)) for path in given.values()):
        raise InputError(f"{' and '.join(given)} name the same file, {next(iter(given.values()))}")


def _check(option: str, path: str) -> None:
    target = Path(path)
    try:
        if target.is_dir():
            raise InputError(f"{option} {path}: is a directory")
        if not target.parent.is_dir():
            raise InputError(f"{option} {path}: the directory {target.parent} does not exist")
        place = target.parent if _plain(target) else target
    except ValueError as error:
        raise InputError(f"{option} {path!r}: cannot be written ({error})") from None
    if not os.access(place, os.W_OK):
        raise InputError(f"{option} {path}: cannot be written (no permission, or a read-only file system)")


def data_files(path: str | None) -> tuple[str, ...]:
    """The files that a data set is read from: its own, and that of its labels where they lie beside it."""
    if path is None:
        return ()
    from mipverify.specification.dataset_files import labels_beside

    return path, *map(str, labels_beside(Path(path)))


def remove_stale(paths: Iterable[str | None]) -> None:
    """Remove answers to an earlier question, so that none is left beside this one. A link is removed, not its file."""
    for path in paths:
        if path is not None and _plain(Path(path)):
            Path(path).unlink(missing_ok=True)


def write(path: str, content: str | bytes) -> None:
    """Write a file as a whole: a reader never finds half of it, and a link is replaced, not what it points to.

    Raises MipverifyError where that is not possible any more, such as on a disk that has become full.
    """
    from mipverify.report.files import Replacing

    target = Path(path)
    try:
        if not _plain(target):  # a pipe or a device, such as /dev/stdout
            target.write_bytes(content.encode() if isinstance(content, str) else content)
            return
        with Replacing(target, binary=isinstance(content, bytes)) as file:
            file.write(content)
    except OSError as error:
        raise MipverifyError(f"{path}: cannot be written ({error.strerror})") from None


class Written(Protocol):
    """What becomes a file."""

    def to_bytes(self) -> bytes:
        """The file."""


def write_proof(path: str | None, proof: Written | None) -> tuple[str | None, MipverifyError | None]:
    """Where a proof was written, if one was asked for and found, and what was in the way.

    The answer that it proves stands without it: who asked tells that first, and raises the error then.
    """
    if path is None or proof is None:
        return None, None
    try:
        write(path, proof.to_bytes())
    except MipverifyError as error:
        return None, error
    return path, None


def _plain(path: Path) -> bool:
    """Whether a path is, or would become, a file; not a device or a pipe."""
    return path.is_file() or not path.exists()
