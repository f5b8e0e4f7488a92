"""A question in a process that may die of its memory cap: numerical libraries end it where an allocation fails.

The process tells how far it has come as it goes; if it ends without an answer, that is what is left of it.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from mipverify.engine.budget import Clock, cap_memory
from mipverify.engine.run import Run
from mipverify.engine.schedule import CASCADE
from mipverify.engine.verdict import Verdict
from mipverify.errors import InputError
from mipverify.parallel.guard import GRACE

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# Loaded before memory is capped: a library that cannot be loaded any more would look as if it was missing.
NEEDED = ("mipverify.engine.verify", "mipverify.presolve.cutting", "mipverify.solvers.branch_and_bound", "highspy")
OUT = "out of memory"
NO_MEMORY, FAILED = 12, 70  # exit codes of the process: an allocation failed in Python itself, and anything else
# How libraries end a process where they get no memory: BLAS exits with 1, others abort or touch what is not there.
OF_LIBRARIES = (1, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS)


SENT = ("network", "specification", "solver", "seed", "workers", "proof")  # of a run


def run_confined(run: Run, memory: int) -> Verdict:
    """The verdict of a run whose process may take `memory` more bytes of address space once it has read the question.

    Raises InputError where network, property or stages cannot be sent to another process, and RuntimeError where that
    ends without an answer for another reason than memory.
    """
    from mipverify.parallel.process import start

    options = {name: getattr(run, name) for name in SENT}
    stages = None if run.stages is CASCADE else run.stages
    try:
        task = pickle.dumps((options, stages, time.time() + run.clock.left(), memory))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(f"memory: the question cannot be sent to a process with less memory ({error})") from None
    process, connection = start("mipverify.engine.confined")
    found: Verdict | None = None
    reason, capped = "time", False
    try:
        for word, content, *told in _messages(connection, task, run.clock):
            if word == "error":
                raise content
            if word == "capped":
                capped = True
                continue
            assert isinstance(content, Verdict)
            if word == "verdict":
                return replace(content, seconds=run.clock.elapsed())
            found = content
            run.progress(*told)
    except EOFError:
        _require_want_of_memory(process, capped=capped)
        reason = OUT
    except KeyboardInterrupt:
        reason = "interrupted"
    finally:
        process.kill()
        process.wait()
        connection.close()
    return replace(found or run.verdict(reason), reason=reason, seconds=run.clock.elapsed())


def _messages(connection: Connection, task: bytes, clock: Clock) -> Iterator[tuple[Any, ...]]:
    """What the process says to a task until time is up. Raises EOFError where it ends, if in the middle of a word."""
    try:
        connection.send_bytes(task)
        while connection.poll(clock.left() + GRACE):
            yield connection.recv()
    except OSError:
        raise EOFError from None


def _require_want_of_memory(process: subprocess.Popen[bytes], *, capped: bool) -> None:
    """Raise RuntimeError unless the process, whose end of the connection is closed, ended for want of memory.

    capped: whether its cap was set already; before that, an exit or a crash of a library has another cause.
    """
    code = process.wait()
    if code not in (NO_MEMORY, -signal.SIGKILL, *(OF_LIBRARIES if capped else ())):
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        raise RuntimeError(f"the process under a memory cap ended {how}, without an answer")


def main(channel: int, parent: int) -> None:
    """The other process: reads a question, answers it under its cap."""
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
        connection.send(_answer(run, memory, connection))
    except MemoryError:
        os._exit(NO_MEMORY)
    except Exception:  # noqa: BLE001 - Python's own exit code would be that of a library without memory
        os._exit(FAILED)


def _answer(run: Run, memory: int, connection: Connection) -> tuple[str, Verdict | Exception]:
    try:
        assert run.replay is not None  # made before memory is short: what it refuses is no matter of that
        connection.send(("capped", None))
        cap_memory(memory)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries say as they die
        return "verdict", run.finish()
    except (MemoryError, ImportError):
        return "verdict", run.verdict(OUT)
    except InputError as error:
        return "error", error
    except Exception as error:  # noqa: BLE001 - raised again by who waits
        return "error", RuntimeError(f"{type(error).__name__}: {error}")
