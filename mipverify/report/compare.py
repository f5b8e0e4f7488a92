"""Two runs side by side: what each decided, and the samples on which they differ."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mipverify.engine.sample import VERDICTS, SampleResult
from mipverify.errors import InputError
from mipverify.report.configuration import RunConfiguration
from mipverify.report.store import read_run
from mipverify.report.summary import Counts


@dataclass(frozen=True)
class Run:
    """One of the runs. `counts` is over the samples that both have."""

    name: str
    configuration: RunConfiguration
    samples: dict[int, SampleResult]
    counts: Counts
    sample_seconds: float
    wall_seconds: float


@dataclass(frozen=True)
class Difference:
    """A sample with two verdicts. `contradiction`: both claim to be sure, about the same question."""

    index: int
    label: int
    first: SampleResult
    second: SampleResult
    contradiction: bool


@dataclass(frozen=True)
class Comparison:
    """Both runs on the samples that they share."""

    first: Run
    second: Run
    common: int
    only_first: int
    only_second: int
    other_question: list[str]
    differences: list[Difference]

    @property
    def contradictions(self) -> list[Difference]:
        """Samples that cannot be right in both runs."""
        return [difference for difference in self.differences if difference.contradiction]

    @property
    def transitions(self) -> list[tuple[str, str, int]]:
        """How many samples went from which verdict to which."""
        found = Counter((d.first.verdict, d.second.verdict) for d in self.differences)
        return [(a, b, found[a, b]) for a in VERDICTS for b in VERDICTS if found[a, b]]


def compare(first: str | Path, second: str | Path) -> Comparison:
    """Compare the runs in two directories.

    Raises InputError if one holds no run or one with several radii, or if they are about different data.
    """
    one, one_samples, one_seconds = read_run(Path(first))
    two, two_samples, two_seconds = read_run(Path(second))
    if (one.data_sha256, one.labels_sha256) != (two.data_sha256, two.labels_sha256):
        raise InputError(f"{first} and {second} are about different data ({one.data} and {two.data})")
    for directory, run in ((first, one), (second, two)):
        if run.curve:
            raise InputError(f"{directory}: is a run with several radii ({run.eps}); runs with one can be compared")
    left, right = ({r.index: r for r in samples} for samples in (one_samples, two_samples))
    common = sorted(left.keys() & right.keys())
    other = [name for name, same in _questions(one, two).items() if not same]
    differences = [
        Difference(
            index=index,
            label=left[index].label,
            first=left[index],
            second=right[index],
            contradiction=not other and left[index].decided and right[index].decided,
        )
        for index in common
        if left[index].verdict != right[index].verdict
    ]
    return Comparison(
        first=_run(str(first), one, left, common, one_seconds),
        second=_run(str(second), two, right, common, two_seconds),
        common=len(common),
        only_first=len(left) - len(common),
        only_second=len(right) - len(common),
        other_question=other,
        differences=sorted(differences, key=lambda d: (not d.contradiction, d.index)),
    )


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the comparison as one self-contained HTML file."""
    from mipverify.report.files import Replacing
    from mipverify.report.page import environment

    html = environment().get_template("compare.html").render(comparison=comparison)
    with Replacing(path) as file:
        file.write(html)


def _questions(one: RunConfiguration, two: RunConfiguration) -> dict[str, bool]:
    return {
        "arithmetic": one.arithmetic == two.arithmetic,
        "network": one.network_sha256 == two.network_sha256,
        "eps": one.eps == two.eps,
        "norm": one.norm == two.norm,
        "preprocessing": one.preprocessing == two.preprocessing,
    }


def _run(
    name: str, configuration: RunConfiguration, samples: dict[int, SampleResult], common: list[int], wall: float
) -> Run:
    shared = [samples[index] for index in common]
    return Run(name, configuration, samples, Counts.of(shared), sum(r.seconds for r in shared), wall)
