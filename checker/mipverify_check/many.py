"""Many proofs about one network: each gets its own answer, and none keeps another from being checked."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from mipverify_check import __version__
from mipverify_check.answer import BAD_INPUT, REJECTED, VERIFIED, Answer, Limits, Prepared, printable, read_proof
from mipverify_check.errors import BadInputError


def proofs_in(folder: Path) -> list[str]:
    """The proof files of a folder, in the order of their names. Raises BadInputError."""
    found = sorted(str(path) for path in folder.glob("*.npz") if path.is_file())
    if not found:
        raise BadInputError(f"{folder}: holds no proofs (*.npz)")
    return found


def check_all(paths: Iterable[str], prepared: Prepared, limits: Limits, as_json: bool) -> int:
    """Print a line for each proof as soon as it is checked; returns the worst exit code.

    as_json: JSON objects instead, of which the first says who checks.
    """
    counts: Counter[int] = Counter()
    if as_json:
        print(json.dumps(_who(prepared)), flush=True)
    for path, sha256, answer in _answers(paths, prepared, limits):
        counts[answer.code] += 1
        told = json.dumps(_record(path, sha256, answer)) if as_json else printable(f"{path}: {answer}")
        print(told, flush=True)
    if not as_json:
        print(f"{counts[VERIFIED]} of {counts.total()} proofs verified")
    return max((code for code in (VERIFIED, REJECTED, BAD_INPUT) if counts[code]), default=VERIFIED)


def check_one(path: str, prepared: Prepared, limits: Limits) -> int:
    """Print one JSON object about one proof; returns the exit code."""
    for name, sha256, answer in _answers([path], prepared, limits):
        print(json.dumps({**_who(prepared), **_record(name, sha256, answer)}))
    return answer.code


def _who(prepared: Prepared) -> dict[str, str]:
    who = {"checker": "mipverify-check", "version": __version__, "arithmetic": prepared.arithmetic}
    return {**who, "network": prepared.sha256}


def _record(path: str, sha256: str | None, answer: Answer) -> dict[str, object]:
    asked = None if answer.claim is None else answer.claim.asked
    return {"proof": path, "sha256": sha256, "verdict": answer.verdict, "reason": answer.reason, "asked": asked}


def _answers(paths: Iterable[str], prepared: Prepared, limits: Limits) -> Iterator[tuple[str, str | None, Answer]]:
    for path in paths:
        try:
            content = read_proof(path)
        except BadInputError as error:
            yield path, None, Answer(BAD_INPUT, reason=str(error))
            continue
        yield path, hashlib.sha256(content).hexdigest(), prepared.answer(content, limits)


def named_on_stdin() -> Iterator[str]:
    """Paths from standard input, one a line, each as soon as it is there."""
    for line in iter(sys.stdin.readline, ""):
        if line.strip():
            yield line.rstrip("\n")
