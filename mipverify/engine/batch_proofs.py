"""Why samples of a batch hold, written down as one proof file each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from mipverify.engine.sample import SampleResult
from mipverify.engine.state import Grounds
from mipverify.formulation.margin import margin_network
from mipverify.network import Network
from mipverify.proof.derivation import Derivation, Pass, Pre
from mipverify.specification import Case, Specification
from mipverify.specification.exact import exact_number
from mipverify.specification.normalization import Normalization
from mipverify.specification.robustness import misclassified
from mipverify.specification.statement import RobustnessStatement


@dataclass(frozen=True, eq=False)
class BatchProofs:
    """Writes proofs of one question about all samples.

    margins: a network with margins of as many conditions as a sample has, whose node it is that rows stand for.
    """

    network: Network
    eps: Fraction
    domain: tuple[Fraction, Fraction] | None
    normalization: Normalization | None
    margins: Network

    @staticmethod
    def of(
        network: Network, eps: str, domain: tuple[object, object] | None, normalization: Normalization | None
    ) -> BatchProofs:
        """Of one question about all samples."""
        limits = None
        if domain is not None:
            limits = exact_number(domain[0], "domain limit"), exact_number(domain[1], "domain limit")
        margins = margin_network(network, misclassified(0, network.output_size, network.input_size))
        return BatchProofs(network, exact_number(eps, "eps"), limits, normalization, margins)

    def shown(self, result: SampleResult, case: Case, image: np.ndarray, grounds: Grounds) -> SampleResult:
        """The result with its proof; unknown where there is no rule for what was found.

        case, image (n,): of the sample. grounds: of each condition, those of a label after those of another.
        """
        from mipverify.proof_file import Ground, UnprovableError, write_proof

        targets = tuple(c for c in range(self.network.output_size) if c != result.label)
        question = self.eps, "linf", self.domain, self.normalization
        asked = RobustnessStatement(image.astype(np.float64), result.label, targets, *question)
        lower, upper = case.inputs.box.enclosure
        ground = Ground(self.margins, lower, upper, self._own(grounds))
        try:
            proof = write_proof(
                self.network, Specification((case,), "robustness", statement=asked), [ground], {"index": result.index}
            )
        except UnprovableError as error:
            return replace(result, verdict="unknown", reason=f"no proof can be written: {error}")
        return replace(result, proof=proof.to_bytes())

    def _own(self, grounds: Grounds) -> Grounds:
        """Grounds in the numbers that a sample's own conditions have: each label has as many."""
        each, known = self.margins.output_size, dict[int, Derivation]()

        def own(how: Derivation) -> Derivation:
            if id(how) not in known:
                known[id(how)] = replace(how, units=how.units % each) if isinstance(how, (Pass, Pre)) else how
            return known[id(how)]

        return {condition % each: (own(how), place) for condition, (how, place) in grounds.items()}
