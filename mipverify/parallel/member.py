"""A process of a `Crew`: `python -m mipverify.parallel.member SOCKET PARENT`."""

from __future__ import annotations

import importlib
import os
import sys

from mipverify.parallel.process import connect

# What work is made of: loaded before this process says that it is ready.
NEEDED = ("mipverify.presolve.cutting", "mipverify.solvers.branch_and_bound")


def main(arguments: list[str]) -> None:
    """Do what is sent until the other side is gone."""
    connection = connect(arguments)
    for module in NEEDED:
        importlib.import_module(module)
    connection.send("ready")
    context: object = None
    while True:
        try:
            what, content = connection.recv()
            if what == "context":
                context = content
                continue
            work, item = content
            # Who stops the work ends this process. An error ends it too: the other side does the work again.
            connection.send(work(context, item, lambda: False))
        except (EOFError, OSError):
            os._exit(0)


if __name__ == "__main__":
    main(sys.argv)
