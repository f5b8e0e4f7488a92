"""The process around a command: streams that may be closed, a reader that may go away, and Ctrl-C."""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mipverify.errors import MipverifyError

GONE = (errno.EPIPE, errno.EIO)  # the reader of a pipe, and a terminal


def open_streams() -> None:
    """Let descriptors 0 to 2 exist: else the next file that is opened, a database say, would get what is printed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    sys.stdout = sys.stdout or _nothing()
    sys.stderr = sys.stderr or _nothing()


@contextmanager
def quiet_arithmetic() -> Iterator[None]:
    """In here numpy says nothing of overflow: it is accounted for where a bound is made, and no news to a user.

    Whoever asks Python for warnings (`-W`, PYTHONWARNINGS) gets them.
    """
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore", RuntimeWarning)
        yield


def printable(text: str) -> str:
    """A line with what a terminal would act on, in the name of a file say, written as Python's escapes."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def say(text: str) -> None:
    """Print a result on stdout. A reader or a terminal that went away does not change the outcome of the command.

    Raises MipverifyError where it cannot be printed for another reason, such as a full disk.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        silence_stdout()
        if error.errno in GONE:
            return
        raise MipverifyError(f"stdout: cannot be written ({error.strerror})") from None


def tell(text: str) -> None:
    """Print a line on stderr, if there is anyone to read it."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def reader_is_gone(error: BaseException) -> bool:
    """Whether an error, or the one that it was made of, says that nobody reads what is printed."""
    return any(isinstance(e, OSError) and e.errno in GONE for e in (error, error.__context__))


def silence_stdout() -> None:
    """Drop what is left to print: Python's own flush at exit would fail again, and change the exit code."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError):
        os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


@contextmanager
def second_interrupt_ends() -> Iterator[None]:
    """Inside, Ctrl-C is answered in good order once; another one ends the process at once, whatever it is doing."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, or somebody else's
        yield
        return

    def first(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _nothing() -> Any:
    return open(os.devnull, "w")  # noqa: PTH123 - for as long as the process lives
