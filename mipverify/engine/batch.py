"""Many samples of a data set at once: bounds and attacks in batches, then single work for the samples left open."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mipverify.engine.batch_attack import attack_batch, scores
from mipverify.engine.batch_proofs import BatchProofs
from mipverify.engine.batch_samples import Batch
from mipverify.engine.features import crown_work
from mipverify.engine.sample import OPEN, SampleResult, other_class
from mipverify.engine.verify import verify
from mipverify.network import Network
from mipverify.network.replay import Replay
from mipverify.network.snapshot import snapshot
from mipverify.network.validation import compare, points_of, validated
from mipverify.presolve import Search, crown, fast_lin, interval, optimize_rows
from mipverify.proof.backward import minimum, propagate_backward
from mipverify.proof.bounds import Bounds
from mipverify.proof.parts import never, row_chunks
from mipverify.proof.rows import functionals
from mipverify.specification import Box, Specification, robustness
from mipverify.specification.normalization import Normalization
from mipverify.specification.robustness import linf_ball, nearest_inputs

BATCH = 64  # samples whose bounds are made together: enough for dense products, few enough for the caches
BATCH_ENTRIES = 2**21  # node values of all of them, which bounds keep a dozen times
MOST_WORK = 2**32  # multiplications of CROWN for a sample, about a second, beyond which it is bounded by itself


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
) -> Iterator[SampleResult]:
    """Verdicts of samples against l_inf perturbations of radius eps within the domain, in the order they are reached.

    images (N, ...) floats, labels (N,), indices (N,) under which results are reported. mean, std: the network takes
    (x - mean) / std, as in `robustness`; counterexamples are inputs of the network. only_cheap: leave samples that
    the batched stages do not decide as `open`. timeout: seconds for each of those otherwise. A sample whose clean
    output does not put its label strictly first is misclassified: ties count as errors, as in `robustness`.
    stop: asked between results and between parts of the work; what is not decided by then is left out. proofs: whether
    what holds must come with a proof file.
    """
    if not len(images):
        return
    indices = np.arange(len(images)) if indices is None else np.asarray(indices)
    network = snapshot(network)
    asked = _Perturbed(eps, domain, Normalization.of(mean, std, images.shape[1:]))
    recorded = BatchProofs.of(network, eps, domain, asked.normalization) if proofs else None
    ball = asked.box(images[0])
    replay = validated(network, points_of([(ball.float32_lower, ball.float32_upper)]))
    size = max(1, min(BATCH, BATCH_ENTRIES // sum(math.prod(node.shape) for node in network.nodes)))
    for begin in range(0, len(images), size):
        part = slice(begin, begin + size)
        some = images[part], labels[part], asked, indices[part]
        results = _verify_some(network, replay, *some, stop or never, recorded)
        for result in results:
            if stop is not None and stop():
                return
            if result.open and not only_cheap:
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
                yield _alone(network, specification, result, timeout, solver, seed, proofs)
            else:
                yield result


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


def _verify_some(
    network: Network,
    replay: Replay,
    images: np.ndarray,
    labels: np.ndarray,
    asked: _Perturbed,
    indices: np.ndarray,
    stop: Callable[[], bool],
    proofs: BatchProofs | None,
) -> Iterator[SampleResult]:
    begin = time.perf_counter()
    count = len(images)
    points = asked.clean(images)
    outputs = replay.run(points)
    compare(network, points, outputs, np.float32)  # once more, at little cost
    outputs = scores(outputs, network.output_size)
    others = outputs.astype(np.float64).copy()
    others[np.arange(count), labels] = -np.inf
    right = outputs[np.arange(count), labels] > others.max(axis=1)
    predicted = np.where(right, labels, others.argmax(axis=1))
    seconds = (time.perf_counter() - begin) / count
    for k in np.flatnonzero(~right):
        yield SampleResult(int(indices[k]), int(labels[k]), int(predicted[k]), "misclassified", "evaluation", seconds)
    good = np.flatnonzero(right)
    if not len(good):
        return
    ball = asked.box(images[good])
    margins = np.full((len(good), network.output_size), -np.inf)
    margins[np.arange(len(good)), labels[good]] = np.inf
    shape = (len(good), *network.input_shape)
    batch = Batch(
        network,
        np.asarray(indices)[good],
        np.asarray(labels)[good].astype(int),
        predicted[good].astype(int),
        ball.lower.reshape(shape),
        ball.upper.reshape(shape),
        ball.float32_lower.reshape(len(good), -1),
        ball.float32_upper.reshape(len(good), -1),
        margins,
    )
    if proofs is not None:
        flat = images.reshape(count, -1).astype(np.float64)
        proofs.images = {int(indices[k]): flat[k] for k in good}
        proofs.grounds = {}
    yield from _bounded(batch, replay, begin, count, stop, proofs)


# Methods for whole batches, cheapest first: each works on the samples that the ones before left open.
BOUNDS: tuple[tuple[str, Callable[[Bounds, Callable[[], bool]], Bounds]], ...] = (
    ("interval", lambda bounds, stop: bounds),
    ("fast-lin", fast_lin),
    ("crown", crown),
)


def _bounded(
    batch: Batch, replay: Replay, begin: float, count: int, stop: Callable[[], bool], proofs: BatchProofs | None
) -> Iterator[SampleResult]:
    bounds = interval(batch.network, batch.lower, batch.upper, record=proofs is not None)
    for stage, method in BOUNDS:
        if stop():
            return
        bounds = method(bounds, stop)
        unstable = bounds.unstable_counts()
        _learn_intervals(batch, bounds, proofs)
        if stage != "interval":
            _bound_pairs(batch, bounds.outward(np.float32), proofs)
        minimizers = _bound_pairs(batch, bounds, proofs) if stage == "crown" else None
        yield from _settled(batch, unstable, stage, begin, count, proofs)
        some = _still_open(batch)
        if not len(some):
            return
        batch, bounds, unstable = batch.keep(some), bounds.select(some), unstable[some]
        if stage == "interval" and crown_work(bounds) > MOST_WORK * len(some):
            # An attack costs little beside such bounds; what it leaves open has the clock of a question of its own.
            some = yield from _attacked(batch, replay, None, unstable, begin, count, stop)
            for k in some:
                yield _result(batch, int(k), unstable, "unknown", "interval", begin, count, reason=OPEN)
            return
    assert minimizers is not None
    some = yield from _attacked(batch, replay, minimizers, unstable, begin, count, stop)
    if not len(some) or stop():
        return
    batch, bounds, unstable = batch.keep(some), bounds.select(some), unstable[some]
    if proofs is None:  # slopes of rows that stand for nothing are not recorded: a question of its own finds others
        _optimize_pairs(batch, bounds)
    yield from _settled(batch, unstable, "optimized crown", begin, count, proofs)
    for k in _still_open(batch):
        yield _result(batch, int(k), unstable, "unknown", "optimized crown", begin, count, reason=OPEN)


def _attacked(
    batch: Batch,
    replay: Replay,
    minimizers: np.ndarray | None,
    unstable: np.ndarray,
    begin: float,
    count: int,
    stop: Callable[[], bool],
) -> Generator[SampleResult, None, np.ndarray]:
    """The results of an attack; returns which samples it left open."""
    witnesses = attack_batch(batch, replay, minimizers, stop)
    for k, (point, output) in witnesses.items():
        found = {"adversarial": point, "adversarial_label": other_class(output, int(batch.labels[k]))}
        yield _result(batch, k, unstable, "violated", "attack", begin, count, **found)
    return np.array([k for k in range(len(batch.labels)) if k not in witnesses], dtype=int)


def _learn_intervals(batch: Batch, bounds: Bounds, proofs: BatchProofs | None) -> None:
    """Margins from the intervals of the outputs, rounded down."""
    samples = np.arange(len(batch.labels))
    low, high = (side[batch.network.output].reshape(len(samples), -1) for side in (bounds.lower, bounds.upper))
    difference = np.nextafter(low[samples, batch.labels][:, None] - high, -np.inf)
    difference = np.where(bounds.finite()[:, None], difference, -np.inf)
    if proofs is not None:
        good = (difference > 0) & ~(batch.margins > 0)
        good[samples, batch.labels] = False
        proofs.by_intervals(batch, bounds, *np.nonzero(good))
    batch.margins = np.fmax(batch.margins, difference)
    batch.margins[samples, batch.labels] = np.inf


def _still_open(batch: Batch) -> np.ndarray:
    return np.flatnonzero(~(batch.margins > 0).all(axis=1))


def _settled(
    batch: Batch, unstable: np.ndarray, stage: str, begin: float, count: int, proofs: BatchProofs | None
) -> Iterator[SampleResult]:
    from mipverify.proof_file import UnprovableError

    for k in np.flatnonzero((batch.margins > 0).all(axis=1)):
        try:
            proof = None if proofs is None else proofs.write(batch, int(k))
        except UnprovableError as error:
            reason = f"no proof can be written: {error}"
            yield _result(batch, int(k), unstable, "unknown", stage, begin, count, reason=reason)
        else:
            yield _result(batch, int(k), unstable, "holds", stage, begin, count, proof=proof)


def _result(
    batch: Batch, k: int, unstable: np.ndarray, verdict: str, stage: str, begin: float, count: int, **more: object
) -> SampleResult:
    """Time is the batch's so far, shared evenly."""
    margin = float(batch.margins[k].min())
    return SampleResult(
        int(batch.indices[k]),
        int(batch.labels[k]),
        int(batch.predicted[k]),
        verdict,  # type: ignore[arg-type]
        stage,
        (time.perf_counter() - begin) / count,
        margin if np.isfinite(margin) and verdict != "violated" else None,
        unstable=tuple(int(v) for v in unstable[k]),
        **more,  # type: ignore[arg-type]
    )


def _bound_pairs(batch: Batch, bounds: Bounds, proofs: BatchProofs | None) -> np.ndarray:
    """CROWN rows for the open pairs; returns the minimizing inputs (pairs still open, n)."""
    samples, classes = batch.open_pairs()
    found, points = np.empty(len(samples)), np.empty((len(samples), batch.low32.shape[1]), np.float32)
    for part in row_chunks(batch.network, batch.network.output, len(samples)):
        at = samples[part]
        start = batch.rows(at, classes[part]).reshape(-1, *batch.network.output_shape)
        rows = functionals({batch.network.output: start.astype(bounds.like.dtype)}, at)
        reached = propagate_backward(bounds, rows)
        found[part] = minimum(reached).lower
        coefficients = reached.coefficients.reshape(len(at), -1)
        points[part] = np.where(coefficients > 0, batch.low32[at], batch.high32[at])
        if proofs is not None:
            proofs.by_rows(batch, bounds, at, classes[part], found[part] > 0)
    batch.margins[samples, classes] = np.fmax(batch.margins[samples, classes], found)
    return points[~(batch.margins[samples, classes] > 0)]


def _optimize_pairs(batch: Batch, bounds: Bounds) -> None:
    surrogate = bounds.surrogate()
    samples, classes = batch.open_pairs()
    for part in row_chunks(batch.network, batch.network.output, len(samples)):
        at = samples[part]
        start = batch.rows(at, classes[part]).reshape(-1, *batch.network.output_shape)
        rows = functionals({batch.network.output: start}, at)
        optimum = optimize_rows(bounds, rows, Search(iterations=10), surrogate=surrogate)
        batch.margins[at, classes[part]] = np.fmax(batch.margins[at, classes[part]], optimum.lower)


def _alone(
    network: Network,
    specification: Specification,
    open_: SampleResult,
    timeout: float,
    solver: str,
    seed: int,
    proof: bool,
) -> SampleResult:
    """A sample of its own, by the whole cascade."""
    verdict = verify(network, specification, timeout=timeout, solver=solver, seed=seed, proof=proof)
    witness = verdict.witness
    return SampleResult(
        open_.index,
        open_.label,
        open_.predicted,
        verdict.verdict,
        verdict.stage,
        open_.seconds + verdict.seconds,
        verdict.margin_lower_bound,
        adversarial=None if witness is None else witness.input,
        adversarial_label=None if witness is None else other_class(witness.output, open_.label),
        unstable=tuple(verdict.statistics["unstable_relus"]),
        nodes=int(verdict.statistics["nodes"]),
        reason=verdict.reason,
        trusted=verdict.trusted,
        proof=None if verdict.proof is None else verdict.proof.to_bytes(),
    )
