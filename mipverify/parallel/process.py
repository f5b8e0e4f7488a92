"""Child processes that talk over a socket, use one thread each and end with their parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import Connection

# Read by numerical libraries when they are loaded, so that they must stand in the environment before.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


def start(module: str) -> tuple[subprocess.Popen[bytes], Connection]:
    """A process that runs `python -m MODULE SOCKET PARENT`, and our end of the connection.

    Not forked and not spawned by `multiprocessing`: threads of this process do not matter, and a script that uses the
    library needs no `if __name__ == "__main__"`.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            env=os.environ | ONE_THREAD | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=subprocess.DEVNULL,
            stdout=2,  # nothing but results of the command may reach stdout
        )
    return process, Connection(ours.detach())


def connect(arguments: list[str]) -> Connection:
    """In such a process: its end of the connection. From here on Ctrl-C is left to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(int(arguments[2]))
    return Connection(int(arguments[1]))


def _die_with(parent: int) -> None:
    """On Linux, have the kernel end this process with its parent, even while native code holds the interpreter."""
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
