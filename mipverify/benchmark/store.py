"""Outcomes on disk: each as soon as it is known, and a decision for ever."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from mipverify.benchmark.columns import OUTCOMES, Outcome
from mipverify.benchmark.job import Hashes
from mipverify.errors import InputError
from mipverify.report.database import RunDatabase

SCHEMA = "1"


class BenchmarkStore:
    """The outcomes of one place in `DIR/results.sqlite`; opened again it goes on.

    Only one process at a time may hold it. Raises InputError as `RunDatabase` does, and for another place. Use as a
    context manager, from one thread.
    """

    def __init__(self, directory: Path, instances: str):
        """instances: a fingerprint of all instances of the place, so that numbers keep their meaning."""
        self._database = RunDatabase(directory, "benchmark_run", (OUTCOMES,), "a benchmark")
        try:
            with self._database.beginning() as (connection, stored):
                wanted = {"schema": SCHEMA, "instances": instances}
                if not stored:
                    self._database.describe(connection, wanted)
                elif stored != wanted:
                    raise InputError(f"{directory}: holds a run of other instances: name another folder for this one")
        except BaseException:
            self._database.close()
            raise

    def put(self, outcomes: Collection[Outcome]) -> None:
        """Store outcomes in one transaction: all are on disk when this returns, or none and StoreError."""
        with self._database.transaction() as connection:
            OUTCOMES.put(connection, outcomes)

    def outcomes(self, hashes: Mapping[int, Hashes]) -> list[Outcome]:
        """What is known about some instances, in their order. Raises InputError if their files have changed since."""
        with self._database.reading():
            found = [outcome for outcome in OUTCOMES.read(self._database.connection) if outcome.index in hashes]
        for outcome in found:
            now = hashes[outcome.index]
            for what, then, is_now in (
                ("network", outcome.network_sha256, now.network),
                ("property", outcome.property_sha256, now.property),
            ):
                if then != is_now:
                    raise InputError(
                        f"{self._database.path}: instance {outcome.index} was run with another {what} "
                        f"(SHA-256 {then[:12]}…), which has changed since: name another folder"
                    )
        return found

    def __enter__(self) -> BenchmarkStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
