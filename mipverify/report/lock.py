"""One process at a time works in a run directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from mipverify.errors import InputError

LOCK = ".lock"


class DirectoryLock:
    """Holds `DIR/.lock` until closed. The kernel releases it when the process ends, however it ends.

    Raises InputError if another process holds it.
    """

    def __init__(self, directory: Path):
        path = directory / LOCK
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(self._file, 32).decode("ascii", "replace").strip()
            os.close(self._file)
            raise InputError(f"{directory}: another run (process {owner or 'unknown'}) is working here") from None
        try:
            os.ftruncate(self._file, 0)
            os.write(self._file, f"{os.getpid()}\n".encode())
        except OSError:  # a full disk: the lock holds all the same, only without a name on it
            return

    def close(self) -> None:
        os.close(self._file)
