"""What a worker needs to know, once, to verify samples of a data set."""

from __future__ import annotations

import atexit
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mipverify.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mipverify.engine.sample import SampleResult
    from mipverify.network import Network
    from mipverify.specification.dataset import Dataset


@dataclass(frozen=True)
class Job:
    """One network, one data set, one radius, and how to look for the answer.

    network  path of the ONNX file, its contents (for a machine that does not share the file system), or a Network
    data     path of the data set, or (images (N, ...) as a file would hold them, labels (N,))
    """

    network: str | bytes | Network
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
            network = Path(network).read_bytes()
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


def _network(source: str | bytes | Network) -> Network:
    if not isinstance(source, str | bytes):
        return source
    from mipverify.network import load

    if isinstance(source, str):
        return load(source)
    suffix = ".onnx.gz" if source[:2] == b"\x1f\x8b" else ".onnx"
    # Kept until the process ends: witnesses are replayed on this file.
    with tempfile.NamedTemporaryFile(prefix="mipverify-", suffix=suffix, delete=False) as file:
        file.write(source)
    atexit.register(Path(file.name).unlink, missing_ok=True)
    return load(file.name)


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
