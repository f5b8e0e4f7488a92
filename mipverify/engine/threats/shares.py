"""How much of a threat it takes: questions about ever closer parts of it, between what is proven and what is refuted.

A threat of a smaller radius is part of one of a larger radius: what holds of this holds of that, and what violates that
violates this.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mipverify.engine.distortion import Distortion
from mipverify.engine.threats.threat import Limits
from mipverify.engine.verdict import Verdict, Witness
from mipverify.errors import InputError

if TYPE_CHECKING:
    from mipverify.proof_file import Proof

FIRST = 0.25  # of the least radius that is not proven, asked about where nothing is known from below
FRUITLESS = 3  # questions in a row that end open: what is asked then is ever closer to what is proven


@dataclass(frozen=True, eq=False)
class Shared:
    """An answer, and the radius at which its witness would do already, rounded up; None without a witness."""

    verdict: Verdict
    reached: float | None


def smallest_share(
    ask: Callable[[float, Limits], Shared], most: float, norm: str, limits: Limits, gap: float
) -> Distortion:
    """The smallest radius up to `most` with a counterexample, by bounds that meet within a relative gap.

    ask: about one radius. norm: what the radius is called. Raises InputError for a gap that is none.
    """
    if not 0 < gap < 1:
        raise InputError(f"gap must lie between 0 and 1, not {gap:g}")
    if not most > 0:
        raise InputError(f"the largest distance must be positive, not {most:g}")
    began = time.perf_counter()
    lower, upper, open_from, questions, nodes = 0.0, float("inf"), float("inf"), 0, 0
    witness: Witness | None = None
    worst: object = None
    trusted: tuple[str, ...] = ()
    proof: Proof | None = None
    reason = ""
    radius, fruitless = most, 0
    while fruitless < FRUITLESS:
        left = limits.timeout - (time.perf_counter() - began)
        if left <= 0:
            break
        try:
            answer = ask(radius, replace(limits, timeout=left if questions == 0 else 0.5 * left))
        except KeyboardInterrupt:
            reason = "interrupted"
            break
        questions, nodes = questions + 1, nodes + int(answer.verdict.statistics.get("nodes") or 0)
        if answer.verdict.verdict == "holds":
            lower, proof, fruitless = radius, answer.verdict.proof, 0
            trusted = tuple(dict.fromkeys((*trusted, *answer.verdict.trusted)))
        elif answer.reached is not None:
            upper, witness, fruitless = answer.reached, answer.verdict.witness, 0
            worst = answer.verdict.statistics.get("worst")
        else:
            open_from, fruitless, reason = min(open_from, radius), fruitless + 1, answer.verdict.reason
            if reason == "interrupted":
                break
        if lower >= most or upper - lower <= gap * upper:
            break
        end = min(upper, open_from)
        radius = 0.5 * (lower + end) if lower > 0 else FIRST * end
    closed = upper < float("inf") and upper - lower <= gap * upper
    status: Literal["optimal", "bounded", "none"] = "optimal" if closed else "none" if lower >= most else "bounded"
    return Distortion(
        status,
        lower,
        None if upper == float("inf") else upper,
        witness,
        norm,
        time.perf_counter() - began,
        trusted,
        {"questions": questions, "nodes": nodes, "worst": worst},
        (reason or "time") if status == "bounded" else "",
        proof=proof,
    )
