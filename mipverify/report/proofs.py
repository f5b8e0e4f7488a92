"""The proof files of a run: one for each sample that holds, in a folder of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mipverify.errors import InputError

if TYPE_CHECKING:
    from mipverify.engine.sample import SampleResult

FOLDER = "proofs"


def proof_path(directory: Path, index: int) -> Path:
    """Where the proof of a sample is kept."""
    return directory / FOLDER / f"{index:06d}.npz"


def keep_proofs(directory: Path, results: Iterable[SampleResult]) -> list[SampleResult]:
    """Write the proofs that results bring into the folder of a run; the results without them.

    Raises InputError where that is not possible.
    """
    kept = []
    for result in results:
        if result.proof is not None:
            path = proof_path(directory, result.index)
            try:
                path.parent.mkdir(exist_ok=True)
                part = path.with_suffix(".part")
                part.write_bytes(result.proof)
                part.replace(path)  # whole, or not at all
            except OSError as error:
                raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
            result = replace(result, proof=None, proof_state="kept")
        kept.append(result)
    return kept


def forget_proofs(directory: Path) -> None:
    """Remove the proofs in the folder of a run that has only begun: they are about the question of an earlier one.

    Raises InputError where that is not possible.
    """
    for path in (directory / FOLDER).glob("*.npz"):
        if path.stem.isdigit():
            try:
                path.unlink()
            except OSError as error:
                raise InputError(f"{path}: cannot be removed: {error.strerror or error}") from None


def without_proof(directory: Path, results: Iterable[SampleResult]) -> set[int]:
    """The indices of results that hold, and have no proof in the folder."""
    return {r.index for r in results if r.verdict == "holds" and not proof_path(directory, r.index).is_file()}
