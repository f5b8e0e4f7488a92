"""Who is told of the stages of a question."""

from __future__ import annotations

import sys
from collections.abc import Callable

Progress = Callable[[str, str], None] | bool


def follower(progress: Progress | None) -> Callable[[str, str], None] | None:
    """The caller's own function, or a line on stderr for each stage; None for nobody."""
    if progress is True:
        return lambda stage, text: print(f"{stage}: {text}" if text else stage, file=sys.stderr)
    return progress or None
