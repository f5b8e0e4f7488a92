"""What is known about one instance, and its columns: one declaration each, for the store, the tables and the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from mipverify.report.table import INTEGER, REAL, SECONDS, TEXT, TEXTS, Column, Shown, Table

VERDICTS = ("holds", "violated", "timeout", "unknown", "error")
SOLVED = ("holds", "violated")
WORDS = {"holds": "unsat", "violated": "sat"}  # of the competition; it has the others, too


@dataclass(frozen=True)
class Outcome:
    """How an instance ended.

    onnx, vnnlib: as the place calls them; their contents are told by SHA-256. limit: seconds that it had.
    seconds: wall time of the process, its start included.
    witness: a counterexample in the competition's form. replay: what its check came to, `correct` or what is wrong.
    truth: the verdict that the place gives, or nothing.
    """

    index: int
    benchmark: str
    onnx: str
    vnnlib: str
    network_sha256: str
    property_sha256: str
    verdict: str
    seconds: float
    limit: float
    stage: str = ""
    margin_lower_bound: float | None = None
    nodes: int = 0
    reason: str = ""
    replay: str = ""
    witness: str | None = None
    trusted: tuple[str, ...] = ()
    truth: str = ""

    open = False  # no answer is followed by more work
    hardness = 0.0

    @property
    def solved(self) -> bool:
        """Whether it is decided."""
        return self.verdict in SOLVED

    def final(self, limit: float) -> bool:
        """Whether another run within so many seconds is not worth it: an error may be mended by now."""
        return self.solved or (self.verdict != "error" and self.limit >= limit)

    @property
    def word(self) -> str:
        """The verdict in the competition's words."""
        return WORDS.get(self.verdict, self.verdict)


def short(path: str) -> str:
    """The name of a file without folder and endings; of several networks, all of theirs."""
    from mipverify.specification.naming import network_files

    return ", ".join(PurePosixPath(file).name.removesuffix(".gz").rsplit(".", 1)[0] for _, file in network_files(path))


OUTCOMES = Table[Outcome](
    "instances",
    (
        Column("index", INTEGER, stored_as="instance", shown=Shown("Index")),
        Column("benchmark", TEXT, shown=Shown("Benchmark")),
        Column("onnx", TEXT, shown=Shown("Network", lambda outcome: short(outcome.onnx))),
        Column("vnnlib", TEXT, shown=Shown("Property", lambda outcome: short(outcome.vnnlib))),
        Column("verdict", TEXT, allowed=VERDICTS, shown=Shown("Verdict")),
        Column("seconds", SECONDS, shown=Shown("Seconds", lambda outcome: round(outcome.seconds, 4), digits=2)),
        Column("limit", SECONDS, stored_as="time_limit", shown=Shown("Limit", digits=0, wide_only=True)),
        Column("stage", TEXT, shown=Shown("Stage", wide_only=True)),
        Column("margin_lower_bound", REAL, nullable=True),
        Column("nodes", INTEGER),
        Column("reason", TEXT, shown=Shown("Reason", wide_only=True)),
        Column("replay", TEXT),
        Column("trusted", TEXTS),
        Column("truth", TEXT),
        Column("network_sha256", TEXT),
        Column("property_sha256", TEXT),
        Column("witness", TEXT, nullable=True, tabled=False),
    ),
    Outcome,
    replaces="old.verdict NOT IN ('holds', 'violated')",  # a decision is never replaced
)
