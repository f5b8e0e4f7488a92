"""What a worker needs to know, once, to verify samples of a data set."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mipverify.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mipverify.engine.sample import SampleResult
    from mipverify.network import Network
    from mipverify.network.model_file import ModelFile
    from mipverify.specification.dataset import Dataset


@dataclass(frozen=True)
class Job:
    """One network, one data set, one radius, and how to look for the answer.

    network  path of the ONNX file, what was read of it (whatever becomes of the file meanwhile), or a Network
    data     path of the data set, or (images (N, ...) as a file would hold them, labels (N,))
    """

    network: str | ModelFile | Network
    data: str | tuple[NDArray[Any], NDArray[np.int64]]
    eps: str
    timeout: float
    solver: str = "auto"
    seed: int = 0
    verifier: str = "mipverify.engine.batch:verify_batch"

    def portable(self) -> Job:
        """The same job without reference to a file of this machine."""
        network = self.network
        if isinstance(network, str):
            from mipverify.network.model_file import read_model

            network = read_model(network)[1]
        data = self.data
        if isinstance(data, str):
            from mipverify.specification import load_dataset

            dataset = load_dataset(data)
            data = (dataset.stored, dataset.labels)
        return replace(self, network=network, data=data)


class Verifier:
    """A job with network and data in memory.

    Raises InputError if they cannot be read or do not fit each other.
    """

    def __init__(self, job: Job):
        module, _, name = job.verifier.partition(":")
        self._verify: Callable[..., Iterator[SampleResult]] = getattr(import_module(module), name)
        self._job = job
        self._network = _network(job.network)
        data = _data(job.data).fit_to(self._network.input_shape)
        self._images, self._labels = data.images, data.labels

    def __reduce__(self) -> tuple[Any, ...]:
        return Verifier, (self._job,)

    def run(
        self, indices: Sequence[int], *, only_cheap: bool, stop: Callable[[], bool] | None = None
    ) -> Iterator[SampleResult]:
        """Results of these samples, in any order; with `only_cheap`, some of them `open`."""
        import numpy as np

        chosen = np.asarray(indices, dtype=np.int64)
        yield from self._verify(
            self._network,
            self._images[chosen],
            self._labels[chosen],
            self._job.eps,
            indices=chosen,
            timeout=self._job.timeout,
            solver=self._job.solver,
            seed=self._job.seed,
            only_cheap=only_cheap,
            stop=stop,
        )


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _network(source: str | ModelFile | Network) -> Network:
    from mipverify.network import Network, load

    return source if isinstance(source, Network) else load(source)


def dataset_of(images: NDArray[Any], labels: NDArray[np.int64], name: str = "in memory") -> Dataset:
    """Arrays as a data set. Raises InputError if there is not one label for each image."""
    from mipverify.specification.dataset import Dataset

    if len(images) != len(labels):
        raise InputError(f"data: {len(images)} images, but {len(labels)} labels")
    return Dataset(images, labels, name, name)


def _data(source: str | tuple[NDArray[Any], NDArray[np.int64]]) -> Dataset:
    if isinstance(source, str):
        from mipverify.specification import load_dataset

        return load_dataset(source)
    return dataset_of(*source)
