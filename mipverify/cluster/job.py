"""The verification of the samples of a data set, as workers get it."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from mipverify.cluster.executor import Task

if TYPE_CHECKING:
    from mipverify.engine.sample import SampleResult
    from mipverify.network import Network
    from mipverify.network.model_file import ModelFile
    from mipverify.specification.dataset import Dataset


@dataclass(frozen=True)
class SampleJob:
    """One network, one data set, one radius, and how to look for the answer.

    network  what was read of an ONNX file, which each worker imports, or a Network that comes from no file
    data     the samples; fitted to the network by each worker
    proofs   whether what holds must come with a proof file
    arithmetic  what `holds` is about
    """

    network: ModelFile | Network
    data: Dataset
    eps: str
    timeout: float
    solver: str = "auto"
    seed: int = 0
    verifier: str = "mipverify.engine.batch:verify_batch"
    proofs: bool = False
    arithmetic: str = "real"

    batched = True

    def runner(self) -> Verifier:
        """Raises InputError if network and data do not fit each other."""
        return Verifier(self)

    def given_up(self, index: int, reason: str) -> SampleResult:
        """Undecided, and why."""
        from mipverify.engine.sample import SampleResult

        return SampleResult(index, self.data.label(index), -1, "unknown", "none", 0.0, reason=f"given up: {reason}")


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
        self._inputs = {"domain": data.preprocessing.domain, "mean": data.mean, "std": data.std}

    def __reduce__(self) -> tuple[type[Verifier], tuple[SampleJob]]:
        return Verifier, (self._job,)

    def run(self, task: Task, stop: Callable[[], bool] | None = None) -> Iterator[SampleResult]:
        """As `Runner.run`."""
        import numpy as np

        chosen = np.asarray(task.indices, dtype=np.int64)
        yield from self._verify(
            self._network,
            self._images[chosen],
            self._labels[chosen],
            self._job.eps,
            **self._inputs,
            indices=chosen,
            timeout=self._job.timeout - task.spent,
            solver=self._job.solver,
            seed=self._job.seed,
            only_cheap=task.only_cheap,
            stop=stop,
            kept=self._kept,
            **({"proofs": True} if self._job.proofs else {}),
        )


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
