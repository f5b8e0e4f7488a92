"""A process of a `ProcessPool`."""

from __future__ import annotations

import importlib
import os

from mipverify import garbage
from mipverify.parallel.process import connect
from mipverify.parallel.residents import Abroad

# What work is made of: loaded before this process says that it is ready.
NEEDED = ("mipverify.presolve.cutting", "mipverify.solvers.branch_and_bound")


def main(channel: int, parent: int) -> None:
    """Do what is sent until the other side is gone; arguments as of `connect`."""
    garbage.put_off()
    connection = connect(channel, parent)
    for module in NEEDED:
        importlib.import_module(module)
    connection.send("ready")
    garbage.begin()
    context, abroad = None, Abroad()
    while True:
        try:
            what, content = abroad.loads(connection.recv_bytes())
            if what == "context":
                context = content
                continue
            work, item = content
            # Who stops the work ends this process. An error ends it too: the other side does the work again.
            connection.send_bytes(abroad.dumps(work(context, item, lambda: False)))
        except (EOFError, OSError):
            os._exit(0)
