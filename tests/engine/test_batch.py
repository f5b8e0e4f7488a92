"""Whole data sets in batches against one sample at a time, and witnesses that convince the original file exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import mipverify
from mipverify.attack import pgd
from mipverify.engine import Verdict, batch
from mipverify.engine.batch import verify_batch
from mipverify.engine.samples import HandedOn, LeftOpen
from mipverify.engine.schedule import TOGETHER
from mipverify.engine.stage import Work
from mipverify.network import Network
from mipverify.specification import Box, Specification, robustness
from tests.engine.calls import calling
from tests.soundness.nets import dense, random_layers

FILE = Path(__file__).parents[2] / "models" / "zoo" / "mnist_small_linf0.1.onnx"


@pytest.fixture(scope="module")
def network() -> Network:
    return mipverify.load(FILE)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    dataset = mipverify.load_dataset(FILE.parent / "mnist_100.npz")
    images = np.stack([dataset.image(k).reshape(-1) for k in range(100)])
    return images, np.array([dataset.label(k) for k in range(100)])


def check_witness(x: np.ndarray, image: np.ndarray, label: int, eps: str, targets: list[int] | None = None) -> None:
    """In the box, a float32, and not the label's class on the original file: ties count."""
    assert x.dtype == np.float32
    specification = robustness(image, label, eps, num_classes=10, targets=targets)
    session = onnxruntime.InferenceSession(str(FILE), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    shape = [n if isinstance(n, int) else 1 for n in given.shape]
    (output,) = session.run(None, {given.name: x.reshape(shape)})
    assert specification.violated_by(x, output.reshape(-1))
    assert (x >= 0).all()
    assert (x <= 1).all()
    others = np.delete(output.reshape(-1), label) if targets is None else output.reshape(-1)[targets]
    assert others.max() >= output.reshape(-1)[label]


@pytest.mark.parametrize(("eps", "count"), [("0.1", 24), ("0.2", 8), ("0", 100), ("1e-9", 12), ("1", 4)])
def test_batches_agree_with_single_samples(
    eps: str, count: int, network: Network, data: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = data[0][:count], data[1][:count].copy()
    labels[1] = (labels[1] + 1) % 10  # misclassified
    results = {r.index: r for r in verify_batch(network, images, labels, eps, timeout=4.0)}
    assert sorted(results) == list(range(count))
    assert results[1].verdict == "misclassified"
    for k in range(min(count, 24)):
        found = results[k]
        alone = mipverify.verify(network, robustness(images[k], labels[k], eps, num_classes=10), timeout=4.0)
        words = {found.verdict, alone.verdict}
        if found.verdict == "misclassified":
            assert alone.verdict == "violated"
            assert found.predicted != found.label
        else:
            assert words != {"holds", "violated"}
        if eps in ("0", "1e-9", "1"):
            assert "unknown" not in words
        if found.verdict == "violated":
            assert found.adversarial is not None
            check_witness(found.adversarial, images[k], labels[k], eps)
        if alone.witness is not None:
            check_witness(alone.witness.input, images[k], labels[k], eps)


def test_positions_and_given_indices_do_not_mix(network: Network, data: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = data
    order = np.random.default_rng(1).permutation(100)[:70]  # more than one batch
    plain = {r.index: r for r in verify_batch(network, images, labels, "0.1", only_cheap=True)}
    some = verify_batch(network, images[order], labels[order], "0.1", indices=order, only_cheap=True)
    mixed = {r.index: r for r in some}
    assert sorted(mixed) == sorted(order)
    for index, result in mixed.items():
        assert (result.verdict, result.label) == (plain[index].verdict, plain[index].label)


def test_samples_left_open_are_asked_about_as_they_are(
    network: Network, data: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = data
    asked: list[tuple[Box, list[str]]] = []

    def single(network: Network, specification: Specification, start: HandedOn, **limits: object) -> Verdict:
        (case,) = specification.cases
        asked.append((case.box, [condition.label for condition in case.conditions]))
        return Verdict("unknown", 0.0, "none", statistics={"unstable_relus": [], "nodes": 0}, reason="time")

    monkeypatch.setattr(batch, "verify_rest", single)
    order = np.random.default_rng(2).permutation(100)[:25]
    found = [r for r in verify_batch(network, images[order], labels[order], "0.17", indices=order) if r.reason]
    assert len(found) == len(asked) > 2
    for result, (box, conditions) in zip(found, asked, strict=True):
        expected = robustness(images[result.index], labels[result.index], "0.17", num_classes=10)
        assert box.key() == expected.cases[0].box.key()
        assert conditions == [condition.label for condition in expected.cases[0].conditions]


def test_samples_left_open_go_on_where_the_batch_has_left_them(
    network: Network, data: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its bounds, margins and starting points, and without what it has done already."""
    images, labels = data
    order = np.random.default_rng(2).permutation(100)[:25]
    some = images[order], labels[order], "0.17"
    batched = {r.index: r for r in verify_batch(network, *some, indices=order, only_cheap=True)}
    verdicts: list[Verdict] = []
    rest = batch.verify_rest

    def noted(network: Network, specification: Specification, start: HandedOn, **limits: Any) -> Verdict:
        assert len(start.hints)
        low, high = specification.cases[0].box.enclosure
        assert ((start.hints >= low - 1e-6) & (start.hints <= high + 1e-6)).all()
        verdicts.append(rest(network, specification, start, **limits))
        return verdicts[-1]

    monkeypatch.setattr(batch, "verify_rest", noted)
    results = verify_batch(network, *some, indices=order, timeout=2.0)
    found = [result for result in results if batched[result.index].verdict == "unknown"]
    assert len(found) == len(verdicts) > 2
    for result, verdict in zip(found, verdicts, strict=True):
        steps = verdict.statistics["steps"]
        assert {step["stage"] for step in steps}.isdisjoint(("interval", "crown", "optimized crown"))
        before = batched[result.index].margin_lower_bound
        assert before is not None
        assert steps[0]["bound"] >= before
        assert steps[0]["unstable"] <= sum(batched[result.index].unstable)


def test_what_one_call_left_open_is_where_the_next_one_goes_on(
    network: Network, data: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = data
    order = np.random.default_rng(2).permutation(100)[:25]
    some = images[order], labels[order], "0.17"
    kept = LeftOpen()
    first = list(verify_batch(network, *some, indices=order, only_cheap=True, kept=kept))
    open_ = [result for result in first if result.open]
    assert len(open_) > 2
    monkeypatch.setattr(batch, "_verify_some", lambda *_: pytest.fail("it began anew"))
    for result in open_:
        k = np.flatnonzero(order == result.index)
        one = images[order[k]], labels[order[k]], "0.17"
        (again,) = verify_batch(network, *one, indices=order[k], timeout=1.0, kept=kept)
        assert not again.open
        assert (again.index, again.label, again.predicted) == (result.index, result.label, result.predicted)
        assert kept.take(result.index) is None


def test_what_is_kept_of_open_samples_takes_bounded_memory(
    network: Network, data: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = data
    large = LeftOpen()
    open_ = [r for r in verify_batch(network, images[:40], labels[:40], "0.17", only_cheap=True, kept=large) if r.open]
    held = [large.take(r.index) for r in open_]
    sizes = [known.bytes for _, known in held if known is not None]
    assert len(sizes) == len(open_) > 2
    small = LeftOpen(most_bytes=max(sizes))
    for result, known in (pair for pair in held if pair is not None):
        small.add(result, known)
    left = [small.take(r.index) is not None for r in open_]
    assert left == [False] * (len(left) - 1) + [True]


def test_a_stop_ends_the_batch_with_what_it_has(network: Network, data: tuple[np.ndarray, np.ndarray]) -> None:
    """Also between the parts of its work; what is there by then is what the whole run finds."""
    counts = []
    every = {r.index: r.verdict for r in verify_batch(network, *data, "0.1", only_cheap=True)}
    for most in (0, 5, 30, 10**6):
        polls = iter(range(10**6 + 100))
        seen = list(
            verify_batch(
                network, *data, "0.1", stop=lambda polls=polls, most=most: next(polls) >= most, only_cheap=True
            )
        )
        assert all(r.verdict == every[r.index] for r in seen)
        assert len(seen) <= most
        counts.append(len(seen))
    assert counts[0] == 0 < counts[2] < counts[3] == len(data[0])


def test_samples_whose_bounds_cost_much_are_attacked_and_left_to_themselves(
    network: Network, data: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {r.index: r for r in verify_batch(network, *data, "0.1", only_cheap=True)}
    costly = tuple(replace(stage, most_work=1) if hasattr(stage, "most_work") else stage for stage in TOGETHER)
    monkeypatch.setattr("mipverify.engine.together.TOGETHER", costly)
    monkeypatch.setattr(pgd, "STEP_WORK", 1)  # in parts of one walk
    found = {r.index: r for r in verify_batch(network, *data, "0.1", only_cheap=True)}
    assert found.keys() == plain.keys()
    assert {r.stage for r in found.values()} <= {"evaluation", "interval", "attack"}
    violated = [r for r in found.values() if r.verdict == "violated"]
    assert violated
    for r in violated:
        assert plain[r.index].verdict != "holds"
        check_witness(r.adversarial, data[0][r.index], r.label, "0.1")
    assert all(r.open for r in found.values() if r.verdict == "unknown")


def test_memory_bounds_how_many_samples_go_together(
    network: Network, data: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {r.index: r.verdict for r in verify_batch(network, data[0][:5], data[1][:5], "0.1", only_cheap=True)}
    monkeypatch.setattr(batch, "BATCH_ENTRIES", 1)
    together: list[int] = []

    def counting(work: Work) -> None:
        work.learn(work.problem.start())
        together.append(work.problem.entries)

    monkeypatch.setattr("mipverify.engine.together.TOGETHER", (calling("count", counting), *TOGETHER))
    found = {r.index: r.verdict for r in verify_batch(network, data[0][:5], data[1][:5], "0.1", only_cheap=True)}
    assert set(together) == {1}
    assert found == plain


def test_targets_part_a_violation(network: Network, data: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = data
    violated = next(r for r in verify_batch(network, images, labels, "0.1") if r.verdict == "violated")
    image, label = images[violated.index], labels[violated.index]
    words = {}
    for target in range(10):
        if target == label:
            continue
        asked = robustness(image, label, "0.1", num_classes=10, targets=[target])
        verdict = mipverify.verify(network, asked, timeout=3.0)
        words[target] = verdict.verdict
        if verdict.witness is not None:
            check_witness(verdict.witness.input, image, label, "0.1", [target])
    assert words[violated.adversarial_label or 0] != "holds"
    assert "violated" in words.values()
    assert "holds" in words.values()
    safe = [target for target, word in words.items() if word == "holds"]
    asked = robustness(image, label, "0.1", num_classes=10, targets=safe)
    assert mipverify.verify(network, asked, timeout=5.0).verdict == "holds"


def test_the_domain_cuts_the_ball() -> None:
    # y0 - y1 = x: at 0.05 with radius 0.1, the domain alone keeps x from going below zero, where there is a tie.
    network = dense([([[1.0, 0.0], [0.0, 0.0]], [0.0, 0.0])])
    image = np.array([0.0625, 0.5], np.float32)
    for domain, expected in (((0, 1), "violated"), (("0.03125", 1), "holds"), (None, "violated")):
        asked = robustness(image, 0, "0.1", num_classes=2, domain=domain)
        verdict = mipverify.verify(network, asked, timeout=5)
        assert verdict.verdict == expected
        if verdict.witness is not None and domain is not None:
            assert verdict.witness.input[0] == 0.0
            assert verdict.witness.output[0] == verdict.witness.output[1]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_outputs_beyond_float32_are_no_counterexamples() -> None:
    layers = [(w * np.float32(1e30), b) for w, b in random_layers(np.random.default_rng(2), (4, 5, 5, 3))]
    network = dense(layers)
    images = np.random.default_rng(3).random((6, 4)).astype(np.float32)
    outputs = network.forward(images)
    assert not np.isfinite(outputs).all()
    for result in verify_batch(network, images, np.zeros(6, int), "0.05", timeout=0.5):
        assert result.verdict in ("misclassified", "unknown", "holds")
