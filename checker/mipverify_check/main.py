"""`mipverify-check PROOF NET [PROPERTY]`: verified (0), rejected (1), or bad input (2)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mipverify_check import onnx_file, operators
from mipverify_check.arithmetic import EXACT, FLOATS
from mipverify_check.container import opened
from mipverify_check.errors import BadInputError, RejectedError
from mipverify_check.facts import Checker
from mipverify_check.network import Network
from mipverify_check.question import read_cases, show_covered

LARGEST_PROOF = 2**29  # bytes
MEMORY = 2**31  # bytes


def check(proof: bytes, network: Network, sha256: str, path: str | None) -> str:
    """What a proof has been verified to show, in words. network: as it was read from the file with that SHA-256.

    Raises RejectedError, or BadInputError where the fault lies in the property or in how it was asked about.
    """
    with np.errstate(all="ignore"):
        given = opened(proof)
        about = given.header.get("network")
        if not isinstance(about, dict) or about.get("sha256") != sha256:
            raise RejectedError("it is about another network: the SHA-256 differs")
        cases = read_cases(given, network)
        claim = show_covered(given, cases, network, path)
        Checker(given, network, cases).run()
        return claim


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser("mipverify-check", description="Check a proof that a property of a network holds.")
    parser.add_argument("proof", help="the proof file; with --witness, the counterexample")
    parser.add_argument("network", help="the ONNX file, as the proof was made for it")
    parser.add_argument("property", nargs="?", help="the VNN-LIB file, if the proof is about one")
    parser.add_argument("--exact", action="store_true", help="compute in rational numbers, for small proofs")
    parser.add_argument("--witness", action="store_true", help="replay a counterexample instead")
    options = parser.parse_args(arguments)
    try:
        if options.witness:
            from mipverify_check.witness import replay

            claim = replay(read_proof(options.proof), options.network, options.property)
        else:
            file = onnx_file.read(options.network)
            network = operators.lowered(file, EXACT if options.exact else FLOATS)
            claim = check(read_proof(options.proof), network, file.sha256, options.property)
    except RejectedError as error:
        print(_printable(f"rejected: {' '.join(str(error).split())}"))
        return 1
    except BadInputError as error:
        print(f"mipverify-check: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except MemoryError:
        print("mipverify-check: this needs more than 2 GB of memory", file=sys.stderr)
        return 2
    print(_printable(f"verified: {claim}"))
    return 0


def program() -> int:
    """The same in a process of its own, whose memory is limited to 2 GB."""
    limit_memory()
    return main()


def _printable(text: str) -> str:
    """The text as the terminal can show it: names in a proof may hold any characters, halves of some among them."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def read_proof(path: str) -> bytes:
    """The bytes of a proof file. Raises BadInputError."""
    try:
        if Path(path).stat().st_size > LARGEST_PROOF:
            raise BadInputError(f"{path}: is larger than {LARGEST_PROOF} bytes")
        return Path(path).read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror}") from None


def limit_memory() -> None:
    """Let allocations of this process fail beyond 2 GB, where the system can."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):
        pass


if __name__ == "__main__":
    sys.exit(program())
