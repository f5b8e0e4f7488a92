"""One proof, one answer: verified, rejected, or none within the limits of time and memory."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np

from mipverify_check import onnx_file, operators
from mipverify_check.arithmetic import EXACT, FLOATS
from mipverify_check.container import opened, record
from mipverify_check.errors import BadInputError, RejectedError
from mipverify_check.facts import Checker
from mipverify_check.float32 import rounded
from mipverify_check.network import Network
from mipverify_check.question import Claim, read_cases, show_covered

LARGEST_PROOF = 2**29  # bytes
MEMORY = 2**31  # bytes
VERIFIED, REJECTED, BAD_INPUT = 0, 1, 2  # exit codes


def check(proof: bytes, network: Network, sha256: str, path: str | None) -> Claim:
    """What a proof has been verified to show. network: as it was read from the file with that SHA-256.

    Raises RejectedError, or BadInputError where the fault lies in the property or in how it was asked about.
    """
    with np.errstate(all="ignore"):
        given = opened(proof)
        if record(given.header["network"], ("sha256",))["sha256"] != sha256:
            raise RejectedError("it is about another network: the SHA-256 differs")
        if given.header["arithmetic"] == "float32":
            network = rounded(network)
        cases = read_cases(given, network)
        claim = show_covered(given, cases, network, path)
        Checker(given, network, cases).run()
        return claim


@dataclass(frozen=True)
class Answer:
    """code: VERIFIED with the claim, REJECTED with the reason, or BAD_INPUT where the proof was not judged."""

    code: int
    claim: Claim | None = None
    reason: str = ""

    @property
    def verdict(self) -> str:
        return {VERIFIED: "verified", REJECTED: "rejected"}.get(self.code, "unjudged")

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason if self.claim is None else self.claim}"


@dataclass(frozen=True)
class Limits:
    """seconds: for one proof, None for any time."""

    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network as it was read from the file with that SHA-256. question: the property file of proofs about one."""

    network: Network
    sha256: str
    question: str | None

    @staticmethod
    def of(path: str, asked: str | None, exact: bool) -> Prepared:
        """Raises BadInputError where the network cannot be read."""
        file = onnx_file.read(path)
        return Prepared(operators.lowered(file, EXACT if exact else FLOATS), file.sha256, asked)

    @property
    def arithmetic(self) -> str:
        return "rational" if self.network.arithmetic.exact else "float64"

    def answer(self, proof: bytes, limits: Limits) -> Answer:
        """What is to be said about the bytes of a proof file."""
        try:
            with _limited(limits.seconds):
                return Answer(VERIFIED, check(proof, self.network, self.sha256, self.question))
        except RejectedError as error:
            return Answer(REJECTED, reason=" ".join(str(error).split()))
        except BadInputError as error:
            return Answer(BAD_INPUT, reason=" ".join(str(error).split()))
        except MemoryError:
            return Answer(BAD_INPUT, reason="this needs more than 2 GB of memory")
        except _OutOfTimeError:
            return Answer(BAD_INPUT, reason=f"not finished within {limits.seconds:g} seconds")


class _OutOfTimeError(BaseException):
    """Not an Exception, so that nobody on the way takes it for a fault of what is read."""


@contextmanager
def _limited(seconds: float | None) -> Iterator[None]:
    """Raise _OutOfTimeError in the block once that time is over, where the system has timers."""
    if seconds is None or not hasattr(signal, "setitimer"):
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        raise _OutOfTimeError

    before = signal.signal(signal.SIGALRM, over)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read_proof(path: str) -> bytes:
    """The bytes of a proof file. Raises BadInputError."""
    try:
        if Path(path).stat().st_size > LARGEST_PROOF:
            raise BadInputError(f"{path}: is larger than {LARGEST_PROOF} bytes")
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from None


def printable(text: str) -> str:
    """The text as the terminal can show it: names in a proof may hold any characters, halves of some among them."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
