"""When a process of ours looks for cycles of objects that nobody refers to: not while it starts, nor when it ends.

What imports make stays to the end; looking through it again and again takes a quarter of a short run.
"""

from __future__ import annotations

import gc


def put_off() -> None:
    """Look for none until `begin`."""
    gc.disable()


def begin() -> None:
    """Look for those that are made from here on, where that was put off."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def end() -> None:
    """Look for none any more: the process ends, and its memory with it."""
    gc.freeze()
