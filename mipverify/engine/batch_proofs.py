"""Why samples of a batch hold, written down as one proof file each."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from mipverify.engine.batch_samples import Batch
from mipverify.formulation.margin import margin_network
from mipverify.network import Network
from mipverify.proof.bounds import Bounds
from mipverify.proof.derivation import Derivation, Pass, Pre
from mipverify.specification import Box, Condition, Specification
from mipverify.specification.exact import exact_number
from mipverify.specification.normalization import Normalization
from mipverify.specification.robustness import misclassified
from mipverify.specification.specification import Case
from mipverify.specification.statement import RobustnessStatement

Grounds: TypeAlias = dict[int, tuple[Derivation, int]]


@dataclass(eq=False)
class BatchProofs:
    """What is recorded of the samples of a batch, by their index: for each condition a derivation and one of its rows.

    eps, domain, normalization: of the question. margins: a network with margins of as many conditions as a sample has,
    whose node it is that rows stand for.
    """

    network: Network
    eps: Fraction
    domain: tuple[Fraction, Fraction] | None
    normalization: Normalization | None
    images: dict[int, np.ndarray] = field(default_factory=dict)
    grounds: dict[int, Grounds] = field(default_factory=dict)

    @staticmethod
    def of(
        network: Network, eps: str, domain: tuple[object, object] | None, normalization: Normalization | None
    ) -> BatchProofs:
        """Of one question about all samples."""
        limits = None if domain is None else tuple(exact_number(limit, "domain limit") for limit in domain)
        return BatchProofs(network, exact_number(eps, "eps"), limits, normalization)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        self._conditions: dict[int, tuple[Condition, ...]] = {}
        self.margins = margin_network(self.network, self._conditions_of(0))

    def _conditions_of(self, label: int) -> tuple[Condition, ...]:
        if label not in self._conditions:
            size, outputs = self.network.input_size, self.network.output_size
            self._conditions[label] = misclassified(label, outputs, size)
        return self._conditions[label]

    def by_intervals(self, batch: Batch, bounds: Bounds, samples: np.ndarray, classes: np.ndarray) -> None:
        """Pairs (R,) of samples and classes are told apart by the intervals of the outputs."""
        if bounds.derivation is None:
            return
        conditions = self._numbers(batch, samples, classes)
        for sample in np.unique(samples).tolist():
            own = conditions[samples == sample]
            how = Pre(bounds.derivation, self.margins.output, own, sample)
            self._take(batch, sample, own, how, np.arange(len(own)))

    def by_rows(self, batch: Batch, bounds: Bounds, samples: np.ndarray, classes: np.ndarray, good: np.ndarray) -> None:
        """Pairs (R,) were passed back as rows with CROWN's lines, and those that are `good` (R,) are told apart."""
        if bounds.derivation is None or not good.any():
            return
        conditions = self._numbers(batch, samples, classes)
        how = Pass(bounds.derivation, self.margins.output, conditions, np.ones(len(samples)), samples)
        for sample in np.unique(samples[good]).tolist():
            places = np.flatnonzero(good & (samples == sample))
            self._take(batch, sample, conditions[places], how, places)

    def _numbers(self, batch: Batch, samples: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Which condition of its sample each pair is: classes in order, without the label."""
        return np.asarray(classes - (classes > batch.labels[samples]))

    def _take(self, batch: Batch, sample: int, conditions: np.ndarray, how: Derivation, places: np.ndarray) -> None:
        own = self.grounds.setdefault(int(batch.indices[sample]), {})
        for condition, place in zip(conditions.tolist(), places.tolist(), strict=True):
            own.setdefault(condition, (how, place))

    def write(self, batch: Batch, sample: int) -> bytes:
        """The file of a sample of a batch. Raises UnprovableError where there is no rule for what was found."""
        from mipverify.proof_file import Ground, write_proof

        index, label = int(batch.indices[sample]), int(batch.labels[sample])
        sides = (batch.lower[sample].reshape(-1), batch.upper[sample].reshape(-1))
        box, conditions = Box(*sides, batch.low32[sample], batch.high32[sample]), self._conditions_of(label)
        targets = tuple(c for c in range(self.network.output_size) if c != label)
        question = self.eps, "linf", self.domain, self.normalization
        asked = RobustnessStatement(self.images[index], label, targets, *question)
        specification = Specification((Case(box, conditions),), "robustness", statement=asked)
        ground = Ground(self.margins, *sides, self.grounds.get(index, {}))
        return write_proof(self.network, specification, [ground], {"index": index}).to_bytes()
