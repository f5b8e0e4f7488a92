"""Tools by the competition's rules: +10 for what is right, -150 for what is wrong; and times as PAR-2.

Rules of VNN-COMP 2026. A counterexample counts if ONNX Runtime replays it without any tolerance. `holds` is wrong where
the counterexample of any tool counts. `violated` is wrong if its own does not, or, where the counterexamples of a tool
are not at hand, if another one has proven the contrary or it is known. There is no bonus for time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mipverify.benchmark.check import CORRECT
from mipverify.benchmark.columns import SOLVED, VERDICTS, Outcome
from mipverify.benchmark.others import UNCHECKED, Answer, Tool

RIGHT, WRONG = 10, -150
MINE = "mipverify"
NO_ANSWER = Answer("unknown", 0.0)


@dataclass
class Standing:
    """What a tool came to on some instances: how many ended how, how many of these answers are wrong, and the score.

    par2: mean seconds, where what is not solved rightly counts twice its limit. times: seconds of what is solved.
    """

    instances: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VERDICTS, 0))
    wrong: int = 0
    score: int = 0
    times: list[float] = field(default_factory=list)
    _penalized: float = 0.0

    @property
    def solved(self) -> int:
        """How many answers are right, as far as is known."""
        return len(self.times)

    @property
    def par2(self) -> float:
        return self._penalized / self.instances if self.instances else 0.0

    def add(self, answer: Answer, limit: float, *, wrong: bool) -> None:
        """Count an answer to another instance."""
        self.instances += 1
        self.counts[answer.verdict] += 1
        decided = answer.verdict in SOLVED
        if decided and not wrong:
            self.times.append(answer.seconds)
        self._penalized += answer.seconds if decided and not wrong else 2 * limit
        self.wrong += wrong
        self.score += WRONG if wrong else RIGHT * decided


@dataclass(frozen=True)
class Contradiction:
    """An instance on which decided answers differ, or one differs from what was known."""

    outcome: Outcome
    truth: str
    answers: Mapping[str, Answer]
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Scores:
    """Standings by tool and benchmark, those of all benchmarks under an empty name, and what contradicts."""

    tools: tuple[str, ...]
    benchmarks: tuple[str, ...]
    standings: Mapping[tuple[str, str], Standing]
    contradictions: tuple[Contradiction, ...]


def mine(outcome: Outcome) -> Answer:
    """Our own answer as one of a tool."""
    return Answer(outcome.verdict, outcome.seconds, outcome.replay, outcome.witness or "")


def within(answer: Answer | None, limit: float) -> Answer:
    """An answer, if it came within a limit: other tools may have had longer ones."""
    if answer is None:
        return NO_ANSWER
    return answer if answer.seconds <= limit or answer.verdict not in SOLVED else Answer("timeout", answer.seconds)


def wrong_answers(answers: Mapping[str, Answer], truth: str) -> tuple[str, ...]:
    """The tools whose answers to one instance are wrong, by the rules above. truth: `holds`, `violated` or empty."""
    found = any(answer.verdict == "violated" and answer.witness == CORRECT for answer in answers.values())
    # A replayed counterexample outweighs what was said to be known.
    refuted = found or truth == "violated"
    proven = not refuted and (truth == "holds" or any(answer.verdict == "holds" for answer in answers.values()))
    return tuple(name for name, answer in answers.items() if _is_wrong(answer, refuted=refuted, proven=proven))


def _is_wrong(answer: Answer, *, refuted: bool, proven: bool) -> bool:
    if answer.verdict == "holds":
        return refuted
    given = answer.witness != UNCHECKED
    return answer.verdict == "violated" and answer.witness != CORRECT and (given or proven)


def score(outcomes: Sequence[Outcome], tools: Sequence[Tool], truth: Mapping[int, str] | None = None) -> Scores:
    """Standings of ourselves and other tools on the instances that were run."""
    names = (MINE, *(tool.name for tool in tools))
    benchmarks = tuple(dict.fromkeys(outcome.benchmark for outcome in outcomes))
    standings = {(name, benchmark): Standing() for name in names for benchmark in ("", *benchmarks)}
    contradictions = []
    for outcome in outcomes:
        # What is said after the limit is known, too: it earns nothing, but may show that another answer is wrong.
        given = {MINE: mine(outcome)}
        given |= {tool.name: tool.answers.get(outcome.index, NO_ANSWER) for tool in tools}
        answers = {name: answer if name == MINE else within(answer, outcome.limit) for name, answer in given.items()}
        known = (truth or {}).get(outcome.index) or outcome.truth
        wrong = tuple(name for name in wrong_answers(given, known) if answers[name].verdict in SOLVED)
        said = {answer.verdict for answer in given.values() if answer.verdict in SOLVED}
        if wrong or len(said) > 1 or (known and said - {known}):
            contradictions.append(Contradiction(outcome, known, given, wrong))
        for name, answer in answers.items():
            for benchmark in ("", outcome.benchmark):
                standings[name, benchmark].add(answer, outcome.limit, wrong=name in wrong)
    return Scores(names, benchmarks, standings, tuple(contradictions))
