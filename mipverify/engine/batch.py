"""Many samples of a data set at once: bounds and attacks in batches, then single work for the samples left open."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from mipverify.engine.batch_proofs import BatchProofs
from mipverify.engine.budget import Clock
from mipverify.engine.sample import OPEN, SampleResult, other_class
from mipverify.engine.samples import HandedOn, LeftOpen, answered, samples_together
from mipverify.engine.verify import verify, verify_rest
from mipverify.network import Network
from mipverify.network.compose import ComposedModel
from mipverify.network.replay import Replay
from mipverify.network.snapshot import snapshot
from mipverify.network.validation import compare, points_of, validated
from mipverify.proof.parts import never
from mipverify.specification import Box, Specification, robustness
from mipverify.specification.normalization import Normalization
from mipverify.specification.robustness import linf_ball, nearest_inputs

BATCH = 64  # samples whose bounds are made together: enough for dense products, few enough for the caches
BATCH_ENTRIES = 2**21  # node values of all of them, which bounds keep a dozen times


def verify_batch(
    network: Network,
    images: np.ndarray,
    labels: np.ndarray,
    eps: str,
    *,
    domain: tuple[object, object] | None = (0, 1),
    mean: object = 0,
    std: object = 1,
    indices: Sequence[int] | np.ndarray | None = None,
    timeout: float = 300.0,
    solver: str = "auto",
    seed: int = 0,
    only_cheap: bool = False,
    stop: Callable[[], bool] | None = None,
    proofs: bool = False,
    kept: LeftOpen | None = None,
) -> Iterator[SampleResult]:
    """Verdicts of samples against l_inf perturbations of radius eps within the domain, in the order they are reached.

    images (N, ...) floats, labels (N,), indices (N,) under which results are reported. mean, std: the network takes
    (x - mean) / std, as in `robustness`; counterexamples are inputs of the network. only_cheap: leave samples that
    the batched stages do not decide as `open`. timeout: seconds for each of those otherwise. A sample whose clean
    output does not put its label strictly first is misclassified: ties count as errors, as in `robustness`.
    stop: asked between results and between parts of the work; what is not decided by then is left out. proofs: whether
    what holds must come with a proof file. kept: what is known of samples that an earlier call left open; this one goes
    on from there, and adds those that it leaves open itself. Raises InputError where a ball leaves the set that choices
    of the network were decided for.
    """
    if not len(images):
        return
    indices = np.arange(len(images)) if indices is None else np.asarray(indices)
    network = snapshot(network)
    asked = _Perturbed(eps, domain, Normalization.of(mean, std, images.shape[1:]))
    recorded = BatchProofs.of(network, eps, domain, asked.normalization) if proofs else None
    if isinstance(network.file, ComposedModel) and network.file.within is not None:
        low, high = (side.reshape(len(images), -1) for side in asked.box(images).enclosure)
        network.file.require_within(low.min(axis=0), high.max(axis=0))
    ball = asked.box(images[0])
    replay = validated(network, points_of([(ball.float32_lower, ball.float32_upper)]))
    size = max(1, min(BATCH, BATCH_ENTRIES // sum(math.prod(node.shape) for node in network.nodes)))
    kept = LeftOpen() if kept is None or proofs else kept  # a proof is one of everything

    def alone(result: SampleResult, start: HandedOn | None) -> SampleResult:
        position = int(np.flatnonzero(indices == result.index)[0])
        specification = robustness(
            images[position],
            result.label,
            eps,
            num_classes=network.output_size,
            domain=domain,
            mean=mean,
            std=std,
        )
        return _alone(network, specification, result, start, timeout, solver, seed)

    known = [] if only_cheap else [kept.take(int(index)) for index in indices]
    for found in known:
        if stop is not None and stop():
            return
        if found is not None:
            yield alone(*found)
    others = np.array([k for k in range(len(images)) if not known or known[k] is None], int)
    for begin in range(0, len(others), size):
        part = others[begin : begin + size]
        some = images[part], labels[part], asked, indices[part]
        for result, handed_on in _verify_some(network, replay, *some, seed, stop or never, recorded):
            if stop is not None and stop():
                return
            if handed_on is None:
                yield result
            elif only_cheap:
                if not proofs:
                    kept.add(result, handed_on())
                yield result
            else:
                yield alone(result, None if proofs else handed_on())


@dataclass(frozen=True)
class _Perturbed:
    """All inputs within a radius of images, and inside a domain, as the network takes them."""

    eps: str
    domain: tuple[object, object] | None
    normalization: Normalization | None

    def box(self, images: np.ndarray) -> Box:
        """Of all images (N, ...), one after the other."""
        return linf_ball(images, self.eps, domain=self.domain, normalization=self.normalization)

    def clean(self, images: np.ndarray) -> np.ndarray:
        """The images themselves, (N, n), float32."""
        if self.normalization is None:
            return images.reshape(len(images), -1).astype(np.float32)
        return nearest_inputs(images, self.normalization)


Found: TypeAlias = tuple[SampleResult, Callable[[], HandedOn] | None]


def _verify_some(
    network: Network,
    replay: Replay,
    images: np.ndarray,
    labels: np.ndarray,
    asked: _Perturbed,
    indices: np.ndarray,
    seed: int,
    stop: Callable[[], bool],
    proofs: BatchProofs | None,
) -> Iterator[Found]:
    """Results of samples whose bounds are made together; with those left open, what work of their own starts from."""
    begin = time.perf_counter()
    count = len(images)
    points = asked.clean(images)
    outputs = replay.run(points)
    compare(network, points, outputs, np.float32)  # once more, at little cost
    outputs = _scores(outputs, network.output_size)
    others = outputs.astype(np.float64).copy()
    others[np.arange(count), labels] = -np.inf
    right = outputs[np.arange(count), labels] > others.max(axis=1)
    predicted = np.where(right, labels, others.argmax(axis=1))
    seconds = (time.perf_counter() - begin) / count
    for k in np.flatnonzero(~right):
        found = SampleResult(int(indices[k]), int(labels[k]), int(predicted[k]), "misclassified", "evaluation", seconds)
        yield found, None
    good = np.flatnonzero(right)
    if not len(good):
        return
    own = asked.box(images[good]), labels[good].astype(int)
    samples = samples_together(network, *own, replay, seed, record=proofs is not None)
    for reached in samples.walk(Clock(math.inf, stop=stop)):
        k, state = good[reached.place], reached.course.state
        witness, margin = reached.witness, reached.margin
        found = SampleResult(
            int(indices[k]),
            int(labels[k]),
            int(predicted[k]),
            "violated" if witness is not None else "holds" if reached.holds else "unknown",
            reached.course.stage,
            (time.perf_counter() - begin) / count,
            margin if np.isfinite(margin) and witness is None else None,
            unstable=reached.unstable,
        )
        if witness is not None:
            other = other_class(witness.output, found.label)
            yield replace(found, adversarial=witness.input, adversarial_label=other), None
        elif not reached.holds:
            ran = tuple(reached.course.ran)
            yield replace(found, reason=OPEN), partial(HandedOn.of, state, reached.entry, ran)
        elif proofs is None:
            yield found, None
        else:
            grounds = state.grounds_of(reached.entry)
            yield proofs.shown(found, samples.case(reached.place), images[k].reshape(-1), grounds), None


def _scores(outputs: np.ndarray, classes: int) -> np.ndarray:
    """Outputs (N, k) of the original file; where it ends in an ArgMax and gives a class, 1 for that, else 0."""
    return outputs if outputs.shape[1] == classes else np.eye(classes)[outputs[:, 0].astype(int)]


def _alone(
    network: Network,
    specification: Specification,
    open_: SampleResult,
    start: HandedOn | None,
    timeout: float,
    solver: str,
    seed: int,
) -> SampleResult:
    """A sample of its own, by the rest of the cascade, or by all of it and with a proof where there is no start."""
    if start is None:
        verdict = verify(network, specification, timeout=timeout, solver=solver, seed=seed, proof=True)
    else:
        verdict = verify_rest(network, specification, start, timeout=timeout, solver=solver, seed=seed)
    return answered(open_, verdict)
