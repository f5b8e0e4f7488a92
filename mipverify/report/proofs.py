"""The proof files of a run: one for each sample that holds, at each radius that it was proven at, in a folder."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mipverify.errors import InputError
from mipverify.report.database import StoreError

if TYPE_CHECKING:
    from mipverify.engine.sample import SampleResult

FOLDER = "proofs"


def proof_path(directory: Path, index: int, eps: str = "") -> Path:
    """Where the proof of a sample is kept. eps: the radius, in a run with several."""
    return directory / FOLDER / (f"{index:06d}-{eps.replace('/', '_')}.npz" if eps else f"{index:06d}.npz")


def path_of(directory: Path, result: SampleResult, *, several: bool) -> Path:
    """The same of a result. several: whether the run has several radii."""
    return proof_path(directory, result.index, result.eps if several else "")


def keep_proofs(directory: Path, results: Iterable[SampleResult], *, several: bool = False) -> list[SampleResult]:
    """Write the proofs that results bring into the folder of a run; the results without them.

    several: whether the run has several radii.

    Raises InputError where there can be no folder of proofs, StoreError where one cannot be written.
    """
    kept = []
    for result in results:
        if result.proof is not None:
            path = path_of(directory, result, several=several)
            part = path.with_suffix(".part")
            try:
                path.parent.mkdir(exist_ok=True)
            except OSError as error:
                raise InputError(f"{path.parent}: cannot be written: {error.strerror or error}") from None
            try:
                part.write_bytes(result.proof)
                part.replace(path)  # whole, or not at all
            except OSError as error:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
                raise StoreError(
                    f"{path}: cannot be written ({error.strerror or error}); what was finished is kept, "
                    "the same command continues"
                ) from None
            result = replace(result, proof=None, proof_state="kept")
        kept.append(result)
    return kept


def forget_proofs(directory: Path) -> None:
    """Remove the proofs in the folder of a run that has only begun: they are about the question of an earlier one.

    Raises InputError where that is not possible.
    """
    for path in (directory / FOLDER).glob("*.npz"):
        if path.stem.partition("-")[0].isdigit():
            try:
                path.unlink()
            except OSError as error:
                raise InputError(f"{path}: cannot be removed: {error.strerror or error}") from None


def lacks_proof(directory: Path, result: SampleResult, *, several: bool = False) -> bool:
    """Whether a result holds, and has no proof in the folder."""
    path = path_of(directory, result, several=several)
    return result.verdict == "holds" and not path.is_file()
