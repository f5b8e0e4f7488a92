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
        who = {"checker": "mipverify-check", "version": __version__, "arithmetic": prepared.arithmetic}
        print(json.dumps({**who, "network": prepared.sha256}), flush=True)
    for path, sha256, answer in _answers(paths, prepared, limits):
        counts[answer.code] += 1
        if as_json:
            line = {"proof": path, "sha256": sha256, "verdict": answer.verdict, "reason": answer.reason}
            print(json.dumps({**line, "asked": None if answer.claim is None else answer.claim.asked}), flush=True)
        else:
            print(printable(f"{path}: {answer}"), flush=True)
    if not as_json:
        print(f"{counts[VERIFIED]} of {counts.total()} proofs verified")
    return max((code for code in (VERIFIED, REJECTED, BAD_INPUT) if counts[code]), default=VERIFIED)


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
