"""The errors that callers are expected to handle."""

from __future__ import annotations


class MipverifyError(Exception):
    """Base of the errors that this package raises on purpose."""


class InputError(MipverifyError, ValueError):
    """A network, property, data file or argument cannot be used; the message is one line that says what and where.

    The command line prints it and ends with exit code 2. Everything else that escapes is an internal failure.
    """


def one_line(error: Exception) -> str:
    """The message of an error without its line breaks; the name of its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


class Stopped(Exception):  # noqa: N818 - not an error: the caller asked for it
    """Raised by work that was told to stop before it had anything to give."""


class Complaints:
    """Errors of several arguments, to be told at once: `with complaints: check()` for each, then `complaints.end()`."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def __enter__(self) -> Complaints:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        if isinstance(error, InputError):
            self._found.append(str(error))
            return True
        return False

    def end(self) -> None:
        """Raise InputError with what was found, if anything was."""
        if self._found:
            raise InputError("; ".join(dict.fromkeys(self._found)))
