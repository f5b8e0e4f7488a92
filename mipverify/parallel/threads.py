"""One thread a process: parallel work is done by processes, and threads of small products only wait for each other."""

from __future__ import annotations

import os

# Read by numerical libraries when they are loaded, so that they must stand in the environment before.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


def use_one_thread() -> None:
    """Let the libraries that this process has not loaded yet use one thread, unless its user said how many."""
    if not ONE_THREAD.keys() & os.environ.keys():
        os.environ.update(ONE_THREAD)
