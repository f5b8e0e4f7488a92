"""The independent checker as a process: paths of proofs go in, what it says of each comes out."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mipverify.errors import InputError

PACKAGE = "mipverify_check"
GRACE = 30.0  # seconds beyond its limit of time after which a checker that does not notice it is ended


def command(*arguments: str) -> list[str]:
    """The command line of the checker."""
    return [sys.executable, "-P", "-m", PACKAGE, *arguments]


def environment() -> dict[str, str]:
    """The environment of the checker: installed, or in the folder beside this package, as in a checkout.

    Raises InputError where it is in neither place.
    """
    # A few arrays of half a megabyte come and go all the time: glibc keeps their memory, else a tenth of the time goes
    # into getting it again.
    kept = {**dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(2**28)), **os.environ}
    if importlib.util.find_spec(PACKAGE) is not None:
        return kept
    beside = Path(__file__).parents[2] / "checker"
    if not (beside / PACKAGE).is_dir():
        raise InputError("the checker is a program of its own, which is not installed: pip install mipverify-check")
    known = os.environ.get("PYTHONPATH")
    return {**kept, "PYTHONPATH": os.pathsep.join([str(beside), *([known] if known else [])])}


@dataclass(frozen=True)
class Judgement:
    """What a checker says of one proof. verdict: verified, rejected or unjudged. asked: what a verified one shows."""

    verdict: str
    reason: str = ""
    sha256: str = ""
    asked: dict[str, Any] | None = None


class CheckerProcess:
    """A checker with one network, for many proofs one after the other; begins anew should it end. For one thread.

    who: its name, version and arithmetic, in words. network: SHA-256 of the network that it has read.
    Raises InputError if it cannot start: the network cannot be read, or there is no checker.
    """

    def __init__(self, network: str, *, exact: bool, timeout: float | None):
        limits = [] if timeout is None else [f"--timeout={timeout!r}"]
        self._command = command("--json", *(["--exact"] if exact else []), *limits, "--", "-", network)
        self._timeout = timeout
        self._over = False
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[bytes] | None = None
        self._start()

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            self._command,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # an interrupt is for the command, which ends this
        )
        said = self._line()
        if said is None:
            raise InputError(self._last_words())
        self.who = f"{said['checker']} {said['version']}, {said['arithmetic']}"
        self.network = str(said["network"])

    def judge(self, proof: Path) -> Judgement:
        """What it says of a proof file; a process that ends over it has not judged it."""
        if self._over:
            return Judgement("unjudged", "interrupted")
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        late = None if self._timeout is None else threading.Timer(self._timeout + GRACE, self._process.kill)
        if late is not None:
            late.start()
        try:
            with suppress(BrokenPipeError):
                self._process.stdin.write(f"{proof}\n")
                self._process.stdin.flush()
            said = self._line()
        finally:
            if late is not None:
                late.cancel()
        if said is None:
            return Judgement("unjudged", self._last_words())
        return Judgement(said["verdict"], said["reason"], said["sha256"] or "", said["asked"])

    def _line(self) -> dict[str, Any] | None:
        """What it prints next; None where it ends instead."""
        assert self._process is not None
        assert self._process.stdout is not None
        with suppress(ValueError):  # cut off
            found = json.loads(self._process.stdout.readline())
            return found if isinstance(found, dict) else None
        return None

    def _last_words(self) -> str:
        """Why it has ended; the next proof gets a process of its own."""
        assert self._process is not None
        assert self._errors is not None
        code = self._process.poll()
        self.close()
        code = code if code is not None else -9
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        self._errors.close()
        return lines[-1].removeprefix("mipverify-check: ") if lines else f"the checker ended with exit code {code}"

    def end(self) -> None:
        """Let whoever waits for its judgement wait no longer; for any thread."""
        self._over, process = True, self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End it, and let go of it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(BrokenPipeError):
                        stream.close()
