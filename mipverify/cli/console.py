"""What reaches stdout and stderr, and when."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout


@contextmanager
def stdout_for_results_only() -> Iterator[None]:
    """Inside, everything that is printed goes to stderr, also what native code prints by itself."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def green(text: str) -> str:
    return _styled(text, 32)


def red(text: str) -> str:
    return _styled(text, 31)


def yellow(text: str) -> str:
    return _styled(text, 33)


def _styled(text: str, colour: int) -> str:
    """Bold and in a colour, by its number in ANSI's escape sequences; as it is where nobody sees it on a terminal."""
    plain = "NO_COLOR" in os.environ or not sys.stdout.isatty()
    return text if plain else f"\033[{colour}m\033[1m{text}\033[0m"


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, left: int = 1) -> str:
    """Aligned columns; the first `left` columns flush left, the numbers in the others flush right."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]

    def line(cells: tuple[str, ...]) -> str:
        padded = (c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))
        return "  ".join(padded).rstrip()

    return "\n".join(line(cells) for cells in (header, *rows))
