"""A question in a process that may die of its memory cap: numerical libraries end it where an allocation fails.

The process tells how far it has come as it goes; if it ends without an answer, that is what is left of it.
"""

from __future__ import annotations

import os
import pickle
import time
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from mipverify.engine.budget import Clock, cap_memory
from mipverify.engine.stages import CASCADE
from mipverify.engine.verdict import Verdict
from mipverify.errors import InputError
from mipverify.parallel.guard import GRACE

if TYPE_CHECKING:
    from mipverify.engine.verify import Run

# Loaded before memory is capped: a library that cannot be loaded any more would look as if it was missing.
NEEDED = ("mipverify.engine.verify", "mipverify.presolve.cutting", "mipverify.solvers.branch_and_bound", "highspy")
OUT = "out of memory"


def run_confined(run: Run, memory: int) -> Verdict:
    """The verdict of a run whose process may take `memory` more bytes of address space once it has read the question.

    Raises InputError where network, property or stages cannot be sent to another process.
    """
    from mipverify.parallel.process import start

    options = {name: getattr(run, name) for name in ("network", "specification", "solver", "seed", "workers")}
    stages = None if run.stages is CASCADE else run.stages
    try:
        task = pickle.dumps((options, stages, time.time() + run.clock.left(), memory))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(f"memory: the question cannot be sent to a process with less memory ({error})") from None
    process, connection = start("mipverify.engine.confined")
    found: Verdict | None = None
    reason = "time"
    try:
        connection.send_bytes(task)
        while connection.poll(run.clock.left() + GRACE):
            word, content, *told = connection.recv()
            if word == "error":
                raise content
            assert isinstance(content, Verdict)
            if word == "verdict":
                return replace(content, seconds=run.clock.elapsed())
            found = content
            run.progress(*told)
    except (EOFError, OSError):
        reason = OUT
    except KeyboardInterrupt:
        reason = "interrupted"
    finally:
        process.kill()
        process.wait()
        connection.close()
    return replace(found or run.verdict(reason), reason=reason, seconds=run.clock.elapsed())


def main(channel: int, parent: int) -> None:
    """The other process: reads a question, answers it under its cap."""
    from mipverify.engine.verify import Run
    from mipverify.parallel.process import connect

    connection = connect(channel, parent)
    options, stages, end, memory = pickle.loads(connection.recv_bytes())
    for module in NEEDED:
        import_module(module)

    def progress(stage: str, text: str) -> None:
        connection.send(("progress", run.so_far(OUT), stage, text))

    clock = Clock(end - time.time())
    run = Run(clock=clock, progress=progress, stages=CASCADE if stages is None else stages, **options)
    np.ones((64, 64)) @ np.ones((64, 64))  # the library takes its own buffers at the first product
    try:
        connection.send(_answer(run, memory))
    except MemoryError:
        os._exit(1)


def _answer(run: Run, memory: int) -> tuple[str, Verdict | Exception]:
    try:
        assert run.replay is not None  # made before memory is short: what it refuses is no matter of that
        cap_memory(memory)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries say as they die
        return "verdict", run.finish()
    except (MemoryError, ImportError):
        return "verdict", run.verdict(OUT)
    except InputError as error:
        return "error", error
    except Exception as error:  # noqa: BLE001 - raised again by who waits
        return "error", RuntimeError(f"{type(error).__name__}: {error}")
