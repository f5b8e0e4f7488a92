"""Rotation, translation and scaling of the bundled network's images: nothing sampled beats a proof."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from mipverify import InputError
from mipverify.engine.threats.parse import parse_threat
from mipverify.engine.threats.threat import Limits
from mipverify.engine.threats.transforming import Transforming
from tests.threats.bundled import margins, network, sample

SAMPLES = 300


def transforms_of(text: str, index: int) -> Transforming:
    threat = parse_threat(text)
    assert isinstance(threat, Transforming)
    return threat


@pytest.mark.parametrize(("text", "index"), [("rotation:5", 0), ("rotation:3,translation:1/2", 1), ("scaling:0.05", 2)])
def test_no_sampled_transform_beats_what_is_proven(text: str, index: int) -> None:
    threat, one = transforms_of(text, index), sample(index)
    verdict = threat.verify(network(), one, Limits(60))
    assert verdict.verdict == "holds", verdict
    assert verdict.margin_lower_bound is not None
    transforms = threat.transforms(one)
    rng = np.random.default_rng(0)
    share = rng.uniform(-1, 1, (SAMPLES, len(transforms.names)))
    share[::4] = np.sign(share[::4])
    found = margins(transforms.values(share * transforms.inward), one.label)
    assert found.min() >= verdict.margin_lower_bound
    worst = np.array([list(verdict.statistics["worst"].values())])
    assert margins(transforms.values(worst), one.label)[0] <= found.min() + 0.5  # where it says that it is closest


@pytest.mark.parametrize("index", [6, 7])
def test_a_counterexample_is_the_transform_that_it_says(index: int) -> None:
    threat, one = transforms_of("rotation:5,translation:1", index), sample(index)
    verdict = threat.verify(network(), one, Limits(60))
    assert verdict.verdict == "violated"
    assert verdict.witness is not None
    transforms = threat.transforms(one)
    parameters = np.array(list(verdict.statistics["worst"].values()))
    assert list(verdict.statistics["worst"]) == ["rotation", "right", "down"]
    assert transforms.contains(parameters)
    assert np.array_equal(transforms.float32(parameters), verdict.witness.input)
    assert margins(verdict.witness.input[None], one.label)[0] <= 0


def test_a_mean_and_std_change_nothing_but_the_input() -> None:
    """The same network, asked through a normalization that it undoes itself: the clean image moves with it."""
    threat, plain = transforms_of("rotation:2", 0), sample(0)
    shifted = sample(0, mean="0.25", std="0.5")
    one, two = threat.transforms(plain), threat.transforms(shifted)
    p = np.array([[1.3]])
    assert np.abs((one.values(p) - 0.25) / 0.5 - two.values(p)).max() < 1e-12


def test_the_smallest_share_lies_between_a_proof_and_a_counterexample() -> None:
    threat, one = transforms_of("rotation:10,translation:2", 6), sample(6)
    found = threat.distance(network(), one, Limits(60), gap=0.05)
    assert found.status == "optimal"
    assert found.upper is not None
    assert 0 < found.lower < found.upper <= 1.06 * found.lower
    inside = threat.transforms(one, Fraction(found.lower))
    rng = np.random.default_rng(0)
    images = inside.values(rng.uniform(-1, 1, (200, 3)) * inside.inward)
    assert (margins(images, one.label) > 0).all()
    assert found.witness is not None
    assert margins(found.witness.input[None], one.label)[0] <= 0


def test_time_that_is_up_is_unknown() -> None:
    verdict = transforms_of("rotation:30,translation:3,scaling:0.2", 0).verify(network(), sample(0), Limits(0.3))
    assert verdict.verdict in ("unknown", "violated")
    if verdict.verdict == "unknown":
        assert verdict.reason == "time"
        assert verdict.margin_lower_bound is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="takes no radius"):
        transforms_of("rotation:5", 0).verify(network(), sample(0, eps="0.1"), Limits())
    with pytest.raises(InputError, match="outside of an image is 0"):
        transforms_of("rotation:5", 0).verify(network(), sample(0, domain=(0.5, 1)), Limits())
