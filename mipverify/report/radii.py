"""What is known of samples at several radii, what follows from it, and which radius is worth asking about next.

What holds at a radius holds at all smaller ones, and a counterexample is one at all larger ones. So the radii of a
sample fall into those at which it holds, those at which it is violated, and those between that are open.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from mipverify.engine.sample import SampleResult, SampleVerdict
from mipverify.errors import MipverifyError


class ContradictionError(MipverifyError):
    """A sample holds at a radius and has a counterexample at a smaller one, or at the same: one of both is wrong."""


@dataclass(eq=False)
class _Sample:
    """answers: by place of the radius. holds: the largest place that does, -1 for none. violated: the smallest place
    that is, or the number of radii. left: places that batches left open."""

    holds: int
    violated: int
    answers: dict[int, SampleResult] = field(default_factory=dict)
    left: set[int] = field(default_factory=set)


class Ladder:
    """Answers about samples at radii, given as text, the smallest first.

    Indices of answers and of what is to be asked are sample * len(radii) + place of the radius, as in `SampleJob`.
    """

    def __init__(self, radii: Sequence[str]):
        self.radii = tuple(radii)
        self._place = {eps: place for place, eps in enumerate(self.radii)}
        self._samples: dict[int, _Sample] = {}

    def learn(self, sample: int, answer: SampleResult) -> None:
        """Take over a verdict about a sample, at the radius that it names. Raises ContradictionError."""
        known, place = self._of(sample), self._place[answer.eps]
        if answer.verdict == "misclassified":
            place = 0  # the sample itself lies within every radius
        known.answers[place] = answer
        if answer.verdict == "holds":
            known.holds = max(known.holds, place)
        elif answer.verdict != "unknown":
            known.violated = min(known.violated, place)
        if known.holds >= known.violated:
            holds, violated = self.radii[known.holds], self.radii[known.violated]
            raise ContradictionError(f"sample {sample} holds at {holds} and is violated at {violated}")

    def first(self, samples: Iterable[int]) -> list[int]:
        """What to begin with: the next question about each sample that has one."""
        return [index for sample in samples for index in self._next(sample)]

    def after(self, answer: SampleResult) -> list[int]:
        """The next question about the sample of an answer, if there is one."""
        sample, place = divmod(answer.index, len(self.radii))
        if answer.open:
            self._of(sample).left.add(place)
        else:
            self.learn(sample, answer)
        return self._next(sample)

    def _next(self, sample: int) -> list[int]:
        """First everything in batches, from the largest radius down: until it holds, or nothing is left.

        Then the largest radius that is open: what attacks in batches have not broken there mostly holds, and one proof
        of it is one for all smaller radii.
        """
        known = self._of(sample)
        open_ = [place for place in range(known.holds + 1, known.violated) if place not in known.answers]
        if not open_:
            return []
        fresh = [place for place in open_ if place not in known.left]
        return [sample * len(self.radii) + max(fresh or open_)]

    def at(self, sample: int, place: int) -> SampleResult | None:
        """What is known of a sample at a radius: that answer, or what follows from one about another radius."""
        known = self._of(sample)
        if place <= known.holds:
            source = min(p for p, answer in known.answers.items() if p >= place and answer.verdict == "holds")
        elif place >= known.violated:
            source = max(p for p, answer in known.answers.items() if p <= place and answer.verdict not in OPEN_OR_HOLDS)
        elif place in known.answers:
            source = place
        else:
            return None
        answer, eps = known.answers[source], self.radii[place]
        if answer.eps == eps:
            return replace(answer, index=sample)
        return replace(answer, index=sample, eps=eps, decided_at=answer.eps, seconds=0.0, nodes=0, unstable=())

    def verdicts(self, sample: int) -> tuple[SampleVerdict | None, ...]:
        """Of a sample at each radius; None where nothing is known yet."""
        found = (self.at(sample, place) for place in range(len(self.radii)))
        return tuple(None if row is None else row.verdict for row in found)

    def rows(self, samples: Iterable[int]) -> list[list[SampleResult]]:
        """For each radius what is known of the samples, in their order."""
        chosen = list(samples)
        found = [[self.at(sample, place) for sample in chosen] for place in range(len(self.radii))]
        return [[row for row in rows if row is not None] for rows in found]

    def _of(self, sample: int) -> _Sample:
        if sample not in self._samples:
            self._samples[sample] = _Sample(-1, len(self.radii))
        return self._samples[sample]


OPEN_OR_HOLDS = ("unknown", "holds")
