"""The columns of a sample: one declaration each, from which follow the store, all tables and the page.

To add one, declare it here (CONTRIBUTING.md shows how).
"""

from __future__ import annotations

from typing import Any

from mipverify.engine.sample import PROOF_STATES, VERDICTS, SampleResult
from mipverify.report.table import FLOATS, INTEGER, INTEGERS, REAL, SECONDS, TEXT, TEXTS, Column, Shown, Table

# The bound of an undecided sample only rises, and what its proof trusts stays with it.
_MARGIN = """CASE WHEN new.verdict != 'unknown' THEN new.margin_lower_bound
    ELSE max(ifnull(old.margin_lower_bound, new.margin_lower_bound),
             ifnull(new.margin_lower_bound, old.margin_lower_bound)) END"""
_TRUSTED = """CASE WHEN new.verdict = 'unknown' AND old.margin_lower_bound IS NOT NULL
    AND old.margin_lower_bound >= ifnull(new.margin_lower_bound, old.margin_lower_bound)
    THEN old.trusted ELSE new.trusted END"""


def predicted(sample: SampleResult) -> int | None:
    """The class that the network names for the image itself; None where nobody got so far."""
    return sample.predicted if sample.predicted >= 0 else None


def _margin(sample: SampleResult) -> float | None:
    margin = sample.margin_lower_bound
    return None if margin is None else float(f"{margin:.4g}")


def _unstable(sample: SampleResult) -> Any:
    return sum(sample.unstable) if sample.unstable else None


COLUMNS: tuple[Column, ...] = (
    Column("index", INTEGER, stored_as="sample", shown=Shown("Index")),
    Column("label", INTEGER, shown=Shown("Label")),
    Column(
        "predicted",
        INTEGER,
        merge="iif(new.predicted < 0, old.predicted, new.predicted)",
        value=predicted,
        shown=Shown("Predicted"),
    ),
    Column("verdict", TEXT, allowed=VERDICTS, shown=Shown("Verdict")),
    Column("stage", TEXT, shown=Shown("Stage")),
    Column(
        "seconds",
        SECONDS,
        merge="old.seconds + new.seconds",  # of all attempts
        shown=Shown("Seconds", lambda sample: round(sample.seconds, 4), digits=3),
    ),
    Column(
        "margin_lower_bound",
        REAL,
        nullable=True,
        merge=_MARGIN,
        shown=Shown("Margin at least", _margin, wide_only=True),
    ),
    Column("adversarial", FLOATS, nullable=True, tabled=False),
    Column("adversarial_label", INTEGER, nullable=True),
    Column(
        "unstable",
        INTEGERS,
        merge="CASE WHEN new.unstable = '[]' THEN old.unstable ELSE new.unstable END",
        shown=Shown("Unstable", _unstable, wide_only=True),
    ),
    Column("nodes", INTEGER, merge="old.nodes + new.nodes"),
    Column("reason", TEXT, shown=Shown("Reason", wide_only=True)),
    Column("trusted", TEXTS, merge=_TRUSTED),
    Column("worst", TEXT, older="", shown=Shown("Worst at", wide_only=True, if_any=True)),
    Column("parts", INTEGER, older=1),
    Column("proof_state", TEXT, older="", allowed=PROOF_STATES, shown=Shown("Proof", wide_only=True)),
    Column("proof_check", TEXT, older="", shown=Shown("Proof checked by", wide_only=True)),
    Column("proof_sha256", TEXT, older=""),
)

# A decision is never replaced, but it may get a proof.
_REPLACES = "old.verdict = 'unknown' OR (new.verdict = old.verdict AND new.proof_state = 'kept')"

SAMPLES = Table[SampleResult]("samples", COLUMNS, SampleResult, _REPLACES)

# The same for a run with several radii: a row for each that was asked about.
AT_RADII = Table[SampleResult](
    "radii",
    (
        COLUMNS[0],
        Column("eps", TEXT, shown=Shown("Radius")),
        *COLUMNS[1:],
        Column("decided_at", TEXT, stored=False, value=lambda sample: sample.decided_at or sample.eps),
    ),
    SampleResult,
    _REPLACES,
    keys=2,
)
