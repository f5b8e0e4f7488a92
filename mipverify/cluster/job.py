"""The verification of the samples of a data set, as workers get it."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mipverify.cluster.executor import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mipverify.engine.sample import SampleResult
    from mipverify.engine.threats.threat import Threat
    from mipverify.network import Network
    from mipverify.network.model_file import ModelFile
    from mipverify.specification.dataset import Dataset
    from mipverify.specification.sets import InputSet


@dataclass(frozen=True)
class SampleJob:
    """One network, one data set, one radius or several, and how to look for the answer.

    network  what was read of an ONNX file, which each worker imports, or a Network that comes from no file
    data     the samples; fitted to the network by each worker
    radii    the smallest first. What tasks and answers call an index is sample * len(radii) + place of the radius
    proofs   whether what holds must come with a proof file
    arithmetic  what `holds` is about
    threat   what may be done to samples; None for balls of these radii. The radius is empty where it has none
    """

    network: ModelFile | Network
    data: Dataset
    radii: tuple[str, ...]
    timeout: float
    solver: str = "auto"
    seed: int = 0
    verifier: str = "mipverify.engine.batch:verify_batch"
    proofs: bool = False
    arithmetic: str = "real"
    threat: Threat | None = None

    batched = True

    def runner(self) -> Verifier:
        """Raises InputError if network and data do not fit each other."""
        return Verifier(self)

    def given_up(self, index: int, reason: str) -> SampleResult:
        """Undecided, and why."""
        from mipverify.engine.sample import SampleResult

        sample, place = divmod(index, len(self.radii))
        why = f"given up: {reason}"
        return SampleResult(
            index, self.data.label(sample), -1, "unknown", "none", 0.0, reason=why, eps=self.radii[place]
        )


class Verifier:
    """A job with the network imported and all images as the floats that it takes."""

    def __init__(self, job: SampleJob):
        from mipverify.engine.samples import LeftOpen

        module, _, name = job.verifier.partition(":")
        self._verify: Callable[..., Iterator[SampleResult]] = getattr(import_module(module), name)
        self._job = job
        self._network = imported(job.network, job.arithmetic)
        data = job.data.fit_to(self._network.input_shape)
        self._images, self._labels = data.images, data.labels
        self._kept = LeftOpen()  # between the batches and the work on single samples that this worker gets
        self._inputs: dict[str, Any] = {"domain": data.preprocessing.domain, "mean": data.mean, "std": data.std}
        if job.threat is not None:
            self._inputs |= {"threat": job.threat, "stored": data.stored.shape[1:], "other": data.image}

    def __reduce__(self) -> tuple[type[Verifier], tuple[SampleJob]]:
        return Verifier, (self._job,)

    def run(self, task: Task, stop: Callable[[], bool] | None = None) -> Iterator[SampleResult]:
        """As `Runner.run`. A counterexample is reported at the smallest of the radii within which it lies."""
        import numpy as np

        job, indices = self._job, np.asarray(task.indices, dtype=np.int64)
        samples, places = np.divmod(indices, len(job.radii))
        for place in sorted(set(places.tolist()), reverse=True):
            here = places == place
            for result in self._verify(
                self._network,
                self._images[samples[here]],
                self._labels[samples[here]],
                job.radii[place],
                **self._inputs,
                indices=indices[here],
                timeout=job.timeout - task.spent,
                solver=job.solver,
                seed=job.seed,
                only_cheap=task.only_cheap,
                stop=stop,
                kept=self._kept,
                **({"proofs": True} if job.proofs else {}),
            ):
                yield replace(result, eps=job.radii[self._least(result, place)])

    def _least(self, result: SampleResult, place: int) -> int:
        """The place of the smallest radius about which a result says the same for sure, at most `place`."""
        if result.adversarial is None:
            return place
        image = self._images[result.index // len(self._job.radii)]
        while place > 0 and self._ball(image, self._job.radii[place - 1]).contains(result.adversarial):
            place -= 1
        return place

    def _ball(self, image: NDArray[Any], eps: str) -> InputSet:
        from mipverify.specification.normalization import Normalization
        from mipverify.specification.robustness import linf_ball

        normalization = Normalization.of(self._inputs["mean"], self._inputs["std"], image.shape)
        return linf_ball(image, eps, domain=self._inputs["domain"], normalization=normalization)


def as_sent(network: Network) -> ModelFile | Network:
    """What of a network is sent to workers: the bytes that it was read from, which also replay its witnesses."""
    return network if network.file is None else network.file


def imported(network: ModelFile | Network, arithmetic: str = "real") -> Network:
    """The network that was sent, in an arithmetic."""
    from mipverify.network import Network, load
    from mipverify.network.deployed import in_arithmetic

    return in_arithmetic(network if isinstance(network, Network) else load(network), arithmetic)


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
