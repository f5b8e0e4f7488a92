"""Child processes that talk over a socket, use one thread each and end with their parent."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from mipverify.parallel.threads import ONE_THREAD


def start(module: str) -> tuple[subprocess.Popen[bytes], Connection]:
    """A process that runs `main(socket, parent)` of a module, and our end of the connection.

    Not forked and not spawned by `multiprocessing`: threads of this process do not matter, a script that uses the
    library needs no `if __name__ == "__main__"`, no shared memory is needed, and the child imports what this process
    would import: never from the working directory unless this process does, too.
    """
    ours, theirs = socket.socketpair()
    with theirs, interrupts_held_back():
        process = subprocess.Popen(
            program(f"from {module} import main; main({theirs.fileno()}, {os.getpid()})"),
            pass_fds=[theirs.fileno()],
            env=os.environ | ONE_THREAD,
            stdin=subprocess.DEVNULL,
            stdout=2,  # nothing but results of the command may reach stdout
        )
    return process, Connection(ours.detach())


def connect(channel: int, parent: int) -> Connection:
    """In such a process: its end of the connection. From here on Ctrl-C is left to the parent.

    channel: file descriptor of the socket. parent: process id of who started this.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore", RuntimeWarning)  # of arithmetic: what comes of it is what is sent back
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    _die_with(parent)
    connection = Connection(channel)
    threading.Thread(target=_end_with, args=(channel,), daemon=True).start()
    return connection


def interpreter() -> list[str]:
    """The command of this interpreter with its options on where modules come from, and never the working directory."""
    given = {"-I": sys.flags.isolated, "-E": sys.flags.ignore_environment, "-s": sys.flags.no_user_site}
    return [sys.executable, "-P", *(option for option, is_set in {**given, "-S": sys.flags.no_site}.items() if is_set)]


def program(code: str) -> list[str]:
    """A command that runs `code` in an interpreter that imports what this process would."""
    return [*interpreter(), "-c", f"import sys; sys.path[:] = {_import_path()!a}; {code}"]


def tied(command: Sequence[str]) -> list[str]:
    """A command that runs `command` and ends with this process, however that ends (on Linux; elsewhere it runs on)."""
    if sys.platform != "linux":
        return list(command)
    code = (
        "import ctypes, os, sys; "
        f"ctypes.CDLL(None).prctl({_SET_PARENT_DEATH_SIGNAL}, {int(signal.SIGKILL)}); "
        f"os.getppid() == {os.getpid()} and os.execv(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-I", "-S", "-c", code, *command]


def _import_path() -> list[str]:
    """Where this process looks for modules, without the working directory of an interactive session."""
    return [str(Path(path).absolute()) for path in sys.path if path not in ("", ".")]


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """A child starts with Ctrl-C blocked, until it leaves it to its parent; here it arrives a moment later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def _die_with(parent: int) -> None:
    """On Linux, have the kernel end this process with its parent, even while native code holds the interpreter."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)


def _end_with(channel: int) -> None:
    """End this process once the other side of the socket is closed, on any system."""
    watch = select.poll()
    watch.register(channel, 0)  # a hang-up is always reported, and nothing else is asked for
    watch.poll()
    os._exit(0)
