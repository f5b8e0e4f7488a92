"""`mipverify-check PROOF NET [PROPERTY]`: verified (0), rejected (1), or bad input (2)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mipverify_check.answer import (
    BAD_INPUT,
    MEMORY,
    REJECTED,
    VERIFIED,
    Answer,
    Limits,
    Prepared,
    check,
    printable,
    read_proof,
)
from mipverify_check.errors import BadInputError, RejectedError
from mipverify_check.many import check_all, check_one, named_on_stdin, proofs_in
from mipverify_check.question import Claim

LONGEST = 1e8  # seconds: timers of the system take no more
__all__ = ["check", "limit_memory", "main", "program"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.timeout is not None and not 0 < options.timeout < LONGEST:
            raise BadInputError(f"--timeout must be above 0 and below {LONGEST:g}, not {options.timeout:g}")
        if options.witness:
            return _tell(_replayed(options))
        prepared = Prepared.of(options.network, options.property, options.exact)
        limits = Limits(options.timeout)
        if options.proof == "-":
            return check_all(named_on_stdin(), prepared, limits, options.json)
        if Path(options.proof).is_dir():
            return check_all(proofs_in(Path(options.proof)), prepared, limits, options.json)
        if options.json:
            return check_one(options.proof, prepared, limits)
        return _tell(prepared.answer(read_proof(options.proof), limits))
    except BadInputError as error:
        return _tell(Answer(BAD_INPUT, reason=" ".join(str(error).split())))
    except MemoryError:
        return _tell(Answer(BAD_INPUT, reason="this needs more than 2 GB of memory"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mipverify-check", description="Check a proof that a property of a network holds.")
    parser.add_argument(
        "proof",
        help="the proof file; a folder of them; or -, for paths from standard input; with --witness, a counterexample",
    )
    parser.add_argument("network", help="the ONNX file, as the proof was made for it")
    parser.add_argument("property", nargs="?", help="the VNN-LIB file, if the proof is about one")
    parser.add_argument("--exact", action="store_true", help="compute in rational numbers, for small proofs")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="give up a proof after that time")
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")
    parser.add_argument("--witness", action="store_true", help="replay a counterexample instead")
    return parser


def _replayed(options: argparse.Namespace) -> Answer:
    from mipverify_check.witness import replay

    try:
        return Answer(VERIFIED, Claim(replay(read_proof(options.proof), options.network, options.property), {}))
    except RejectedError as error:
        return Answer(REJECTED, reason=" ".join(str(error).split()))


def _tell(answer: Answer) -> int:
    """Print one answer; what is no judgement goes to standard error."""
    if answer.code == BAD_INPUT:
        print(f"mipverify-check: {answer.reason}", file=sys.stderr)
    else:
        print(printable(str(answer)))
    return answer.code


def program() -> int:
    """The same in a process of its own, whose memory is limited to 2 GB."""
    limit_memory()
    try:
        code = main()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _tell(Answer(BAD_INPUT, reason="interrupted"))
    except BrokenPipeError:  # whoever reads has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BAD_INPUT


def limit_memory() -> None:
    """Let allocations of this process fail beyond 2 GB, where the system can."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):
        pass


if __name__ == "__main__":
    sys.exit(program())
