"""What a run has come to, as an object to look at: tables, curves, counterexamples."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mipverify.engine.sample import VERDICTS, SampleResult
from mipverify.engine.shown import html_table
from mipverify.report.columns import SAMPLES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mipverify.specification.dataset import Dataset


@dataclass(frozen=True, eq=False)
class AccuracyResult:
    """What is known about a test set: `summary` as in summary.json, and every sample in the order of its index.

    preprocessing: what was done to stored values, in words. data: the inputs, as the network takes them but for mean
    and std. class_names: of the classes from 0, for tables and plots; none where classes are called by their numbers.
    """

    summary: dict[str, Any]
    samples: tuple[SampleResult, ...]
    directory: Path | None = None
    preprocessing: str = ""
    data: Dataset | None = field(default=None, repr=False)
    class_names: tuple[str, ...] = ()

    def to_dataframe(self) -> Any:
        """The table of samples as a pandas DataFrame. Raises ImportError if pandas is not installed."""
        frame = SAMPLES.dataframe(self.samples)
        for column in ("label", "predicted", "adversarial_label") if self.class_names else ():
            frame[column] = [None if value != value else self.name_of(int(value)) for value in frame[column]]
        return frame

    def to_arrow(self) -> Any:
        """The table of samples for pyarrow."""
        return SAMPLES.arrow(self.samples)

    def name_of(self, label: int) -> str:
        """What a class is called."""
        return class_name(self.class_names, label)

    def confusion(self) -> NDArray[np.int64]:
        """How many samples of each class (row) are, or can be made, which class (column): (classes, classes).

        Proven samples stand on the diagonal; undecided ones are left out.
        """
        import numpy as np

        pairs = confused(self.samples) + Counter((s.label, s.label) for s in self.samples if s.verdict == "holds")
        size = max((1 + max(pair) for pair in pairs), default=0)
        found = np.zeros((max(size, len(self.class_names)),) * 2, np.int64)
        for pair, count in pairs.items():
            found[pair] = count
        return found

    def plot_curve(self, ax: Any = None) -> Any:
        """How many samples were decided within which time each, on axes of matplotlib, which are returned.

        Raises InputError if matplotlib is not installed.
        """
        from mipverify.report.figures import curve

        return curve(self.samples, ax)

    def plot_confusion(self, ax: Any = None) -> Any:
        """What `confusion` counts, as a matrix on axes of matplotlib, which are returned.

        Colours tell the classes apart that samples are confused with; what is proven has its number alone. Raises
        InputError if no sample is decided, or if matplotlib is not installed.
        """
        from mipverify.report.figures import confusion

        return confusion(self, ax)

    def plot_counterexamples(self, count: int = 8) -> Any:
        """The first counterexamples beside their images, as a figure of matplotlib.

        Raises InputError if there is none, if inputs are no images, or if matplotlib is not installed.
        """
        from mipverify.report.figures import counterexamples

        return counterexamples(self, count)

    def __repr__(self) -> str:
        error = self.summary["adversarial_error"]
        return (
            f"AccuracyResult({self.summary['samples']} samples, "
            f"adversarial error {error['lower']:.2%} to {error['upper']:.2%})"
        )

    def _repr_html_(self) -> str:
        error, whole = self.summary["adversarial_error"], self.summary["samples"]
        exact = error["lower"] == error["upper"]
        rows: dict[str, Any] = {
            "adversarial error": f"{error['lower']:.2%}" + ("" if exact else f" to {error['upper']:.2%}"),
            "clean error": f"{self.summary['clean_error']:.2%}",
        }
        rows |= {verdict: f"{self.summary[verdict]} of {whole}" for verdict in VERDICTS}
        often = [f"{self.name_of(a)} as {self.name_of(b)} ({n})" for (a, b), n in confused(self.samples).most_common(5)]
        rows |= {"confused most": ", ".join(often), "seconds": f"{self.summary['seconds']:.1f}"}
        return html_table(f"{whole} samples, eps {self.summary['eps']}", rows)


def class_name(names: tuple[str, ...], label: int) -> str:
    """What a class is called: its number where it has no name."""
    return names[label] if 0 <= label < len(names) else str(label)


def confused(samples: tuple[SampleResult, ...] | list[SampleResult]) -> Counter[tuple[int, int]]:
    """How many samples of a class are taken for another one, or can be made so: by (label, class)."""
    return Counter(
        (s.label, s.predicted if s.verdict == "misclassified" else int(s.adversarial_label or 0))
        for s in samples
        if (s.verdict == "misclassified" and s.predicted >= 0)
        or (s.verdict == "violated" and s.adversarial_label is not None)
    )
