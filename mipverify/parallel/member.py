"""A process of a `Crew`: `python -m mipverify.parallel.member SOCKET PARENT`."""

from __future__ import annotations

import os
import sys

from mipverify.parallel.process import connect


def main(arguments: list[str]) -> None:
    """Do what is sent until the other side is gone."""
    connection = connect(arguments)
    # Everything that work needs is loaded before this process says that it is ready.
    import mipverify.presolve.cutting
    import mipverify.solvers.branch_and_bound  # noqa: F401

    connection.send("ready")
    context: object = None
    while True:
        try:
            what, content = connection.recv()
            if what == "context":
                context = content
                continue
            work, item = content
            try:
                answer = True, work(context, item, lambda: False)  # who stops the work ends this process
            except Exception:  # noqa: BLE001 - the other side does it again, and sees the error where it can be told
                answer = False, None
            connection.send(answer)
        except (EOFError, OSError):
            os._exit(0)


if __name__ == "__main__":
    main(sys.argv)
