"""Instances as workers get them: each is one run of `mipverify verify`, in a process of its own that a limit ends."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mipverify.benchmark.columns import Outcome
from mipverify.errors import InputError
from mipverify.parallel.process import program, tied

if TYPE_CHECKING:
    from mipverify.benchmark.instances import Instance
    from mipverify.cluster.executor import Task

START = 1.0  # seconds of a limit that starting and ending a process may take, so that it answers within it
SHARE = 0.1  # the largest part of a limit that is set aside for that
GRACE = 3.0  # seconds after its limit in which a process may still end in good order
_MAIN = "import sys; from mipverify.cli.main import main; sys.exit(main())"
_LONGEST = 300  # characters of an error


@dataclass(frozen=True)
class Hashes:
    """SHA-256 of what an instance asks about: of all its networks together, and of the property."""

    network: str
    property: str


@dataclass(frozen=True)
class BenchmarkJob:
    """Instances, and how to look for the answers. Workers read the files where the instances say that they are.

    instances, hashes: by index. cap: seconds that no instance gets more than, or None. processes: for each instance.
    start: seconds of a limit that are set aside for starting and ending, of short limits `SHARE` at most.
    """

    instances: Mapping[int, Instance]
    hashes: Mapping[int, Hashes]
    cap: float | None
    processes: int = 1
    solver: str = "auto"
    seed: int = 0
    memory: str | None = None
    start: float = START

    batched = False

    @property
    def timeout(self) -> float:
        return max(self.limit(index) for index in self.instances) + GRACE

    def limit(self, index: int) -> float:
        """Seconds for an instance."""
        stated = self.instances[index].timeout
        return stated if self.cap is None else min(stated, self.cap)

    def runner(self) -> InstanceRunner:
        return InstanceRunner(self)

    def outcome(self, index: int, verdict: str, seconds: float, **more: Any) -> Outcome:
        """What became of an instance."""
        instance, hashes = self.instances[index], self.hashes[index]
        return Outcome(
            index=index,
            benchmark=instance.benchmark,
            onnx=instance.onnx,
            vnnlib=instance.vnnlib,
            network_sha256=hashes.network,
            property_sha256=hashes.property,
            verdict=verdict,
            seconds=seconds,
            limit=self.limit(index),
            truth=instance.truth,
            **more,
        )

    def given_up(self, index: int, reason: str) -> Outcome:
        return self.outcome(index, "error", self.limit(index), reason=f"given up: {reason}")


class InstanceRunner:
    """Runs instances one after another."""

    def __init__(self, job: BenchmarkJob):
        self._job = job

    def __reduce__(self) -> tuple[type[InstanceRunner], tuple[BenchmarkJob]]:
        return InstanceRunner, (self._job,)

    def run(self, task: Task, stop: Callable[[], bool] | None = None) -> Iterator[Outcome]:
        """As `Runner.run`."""
        for index in task.indices:
            if stop is not None and stop():
                return
            yield self._run(index)

    def _run(self, index: int) -> Outcome:
        limit = self._job.limit(index)
        with tempfile.TemporaryDirectory() as folder:
            witness = Path(folder) / "witness"
            command = [*program(_MAIN), *self._arguments(index, limit, witness)]
            began = time.monotonic()
            process = subprocess.Popen(
                tied(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the run, not for a single instance
                env=os.environ | {"PYTHONSAFEPATH": "1"},
            )
            try:
                out, err = process.communicate(timeout=limit + GRACE)
            except subprocess.TimeoutExpired:
                return self._job.outcome(index, "timeout", time.monotonic() - began, reason="ended at its limit")
            finally:
                process.kill()
                process.wait()
            seconds = time.monotonic() - began
            text = witness.read_text() if witness.is_file() else None
        return self._read(index, seconds, process.returncode, out, err, text)

    def _arguments(self, index: int, limit: float, witness: Path) -> list[str]:
        job, instance = self._job, self._job.instances[index]
        pairs = [(name, str(path)) for name, path in instance.networks]
        network = repr(pairs) if pairs[0][0] else pairs[0][1]
        options = {
            "--timeout": str(max(limit - job.start, (1 - SHARE) * limit)),
            "--workers": str(job.processes),
            "--solver": job.solver,
            "--seed": str(job.seed),
            "--witness": str(witness),
        }
        if job.memory is not None:
            options["--memory"] = job.memory
        return [
            "verify",
            network,
            str(instance.property_path),
            "--json",
            *(part for pair in options.items() for part in pair),
        ]

    def _read(self, index: int, seconds: float, code: int, out: bytes, err: bytes, witness: str | None) -> Outcome:
        """The outcome of a process that ended by itself."""
        job = self._job
        try:
            record = json.loads(out) if code in (0, 3, 10) else None
        except ValueError:
            record = None
        if record is None:
            lines = err.decode("utf-8", "replace").strip().splitlines()
            reason = lines[-1].removeprefix("mipverify: error: ") if lines else f"ended with exit code {code}"
            return job.outcome(index, "error", seconds, reason=reason[:_LONGEST])
        self._same_files(index, record)
        verdict, reason = record["verdict"], record["reason"]
        if verdict == "unknown" and reason == "interrupted":
            raise KeyboardInterrupt
        if seconds > job.limit(index) or (verdict == "unknown" and reason == "time"):
            verdict, reason = "timeout", reason or f"{record['verdict']}, but after its limit"
        return job.outcome(
            index,
            verdict,
            seconds,
            stage=record["stage"],
            margin_lower_bound=record["margin_lower_bound"],
            nodes=int(record["statistics"].get("nodes", 0) or 0),
            reason=reason,
            witness=witness if verdict == "violated" else None,
            replay=self._replayed(index, witness) if verdict == "violated" else "",
            trusted=tuple(record["trusted"]),
        )

    def _same_files(self, index: int, record: Mapping[str, Any]) -> None:
        """Raise InputError if what was verified is not what the run is about."""
        found = record["network"].get("sha256"), record["property"].get("sha256")
        hashes = self._job.hashes[index]
        for what, mine, theirs in zip(("network", "property"), (hashes.network, hashes.property), found, strict=True):
            if theirs is not None and mine != theirs:
                raise InputError(f"{self._job.instances[index].name}: its {what} was replaced while the run went on")

    def _replayed(self, index: int, witness: str | None) -> str:
        from mipverify.benchmark.check import check_witness

        if witness is None:
            return "no witness was written"
        instance = self._job.instances[index]
        return check_witness(instance.networks, instance.property_path, witness)
