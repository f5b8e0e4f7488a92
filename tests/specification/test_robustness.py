"""Robustness questions: exact radius, exact domain, one condition a target."""

from __future__ import annotations

import time
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mipverify.errors import InputError
from mipverify.specification import robustness
from mipverify.specification.normalization import Normalization
from mipverify.specification.robustness import nearest_inputs

IMAGE = np.float32([[0.0, 0.05], [0.5, 1.0]])


def test_ball_and_domain_meet_exactly():
    question = robustness(IMAGE, 1, "0.1", num_classes=3)
    box = question.cases[0].box
    assert (question.kind, question.num_inputs, question.num_outputs) == ("robustness", 4, 3)
    assert box.lower[:2].tolist() == [0.0, 0.0]
    assert box.upper[3] == 1.0
    for i, pixel in enumerate(IMAGE.reshape(-1).tolist()):
        low, high = max(Fraction(pixel) - Fraction(1, 10), 0), min(Fraction(pixel) + Fraction(1, 10), 1)
        assert Fraction(box.lower[i]) <= low <= Fraction(float(box.float32_lower[i]))
        assert Fraction(float(box.float32_upper[i])) <= high <= Fraction(box.upper[i])


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6), st.decimals(0, 1, places=5))
def test_every_pixel_gets_its_own_bounds(pixels, eps):
    box = robustness(np.float32(pixels), 0, eps, num_classes=2, domain=None).cases[0].box
    for i, pixel in enumerate(pixels):
        low, high = Fraction(pixel) - Fraction(eps), Fraction(pixel) + Fraction(eps)
        assert Fraction(box.lower[i]) <= low < Fraction(np.nextafter(box.lower[i], np.inf))
        assert Fraction(np.nextafter(box.upper[i], -np.inf)) < high <= Fraction(box.upper[i])
        assert low <= Fraction(float(box.float32_lower[i])) <= Fraction(float(box.float32_upper[i])) <= high


@pytest.mark.parametrize("eps", ["0.1", 0.1, Decimal("0.1"), Fraction(1, 10), np.float64(0.1)])
def test_a_tenth_is_a_tenth_however_it_is_written(eps):
    assert robustness(IMAGE, 0, eps, num_classes=2).cases[0].box.key() == (
        robustness(IMAGE, 0, "0.1", num_classes=2).cases[0].box.key()
    )


def test_ties_violate_and_targets_keep_their_order():
    question = robustness(IMAGE, 1, 0, num_classes=4, targets=[3, 0])
    three, zero = question.cases[0].conditions
    assert three.output_rows.tolist() == [[0, 1, 0, -1]]
    assert zero.output_rows.tolist() == [[-1, 1, 0, 0]]
    assert question.violated_by(IMAGE, [0.0, 2.0, 9.0, 2.0])
    assert not question.violated_by(IMAGE, [1.0, 2.0, 9.0, 1.0])
    assert not question.violated_by(IMAGE + np.float32(0.01), [0.0, 2.0, 9.0, 2.0])
    assert len(robustness(IMAGE, 1, 0, num_classes=4).cases[0].conditions) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": -0.1}, "negative"),
        ({"eps": "nan"}, "finite"),
        ({"eps": float("inf")}, "finite"),
        ({"eps": "a lot"}, "finite"),
        ({"eps": True}, "finite"),
        ({"norm": "l3"}, "'l3'"),
        ({"label": 3}, "label 3"),
        ({"label": -1}, "label -1"),
        ({"label": True}, "label True"),
        ({"label": np.bool_(True)}, "label"),
        ({"label": 1.0}, "label 1.0"),
        ({"num_classes": 1, "label": 0}, "2 classes"),
        ({"targets": []}, "no target"),
        ({"targets": [1]}, "target 1 is the label"),
        ({"targets": [0, 7]}, "target 7"),
        ({"targets": [0, 0]}, "twice"),
        ({"domain": (0, 0.5)}, r"pixel 3 is 1\.0"),
        ({"domain": (1, 0)}, "domain is empty"),
        ({"domain": 3}, "domain must be two numbers"),
        ({"domain": "01"}, "domain must be two numbers"),
        ({"domain": (0, 1, 2)}, "domain must be two numbers"),
        ({"image": np.float32([0.5, np.nan])}, "pixel 1"),
        ({"image": np.uint8([0, 255])}, "uint8"),
        ({"image": np.zeros((0, 3))}, "empty"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"image": IMAGE, "label": 1, "eps": "0.1", "num_classes": 3} | change
    with pytest.raises(InputError, match=message):
        robustness(arguments.pop("image"), arguments.pop("label"), arguments.pop("eps"), **arguments)


def test_a_network_of_another_size_is_refused():
    question = robustness(IMAGE, 1, "0.1", num_classes=3)
    question.require_shapes((1, 2, 2), (1, 3))
    with pytest.raises(InputError, match=r"4 inputs, the network 5"):
        question.require_shapes((5,), (3,))
    with pytest.raises(InputError, match=r"3 outputs, the network 10"):
        question.require_shapes((4,), (1, 10))


def test_a_colour_image_is_quick():
    image = np.random.default_rng(0).random((3, 32, 32), np.float32)
    start = time.perf_counter()
    robustness(image, 0, "0.01", num_classes=10)
    assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize("make", [np.int32, np.uint8, np.array])
def test_labels_of_arrays(make: type) -> None:
    labels = [robustness(IMAGE, label, "0.1", num_classes=3, targets=[0]) for label in (make(1), 1)]
    assert labels[0].cases[0].conditions[0].name == "class 0 reaches class 1"
    assert repr(labels[0].cases[0].conditions) == repr(labels[1].cases[0].conditions)


def test_images_themselves_are_the_nearest_float32_behind_mean_and_std():
    rng = np.random.default_rng(0)
    images = (rng.integers(0, 256, (4, 3, 2, 5)) / 255).astype(np.float32)
    images[0, 0, 0, 0] = 0.25
    mean, std = ("0.49", "1/3", "0.25"), ("0.25", "1/7", "0.25")
    found = nearest_inputs(images, Normalization.of(mean, std, (3, 2, 5)))
    assert found.shape == (4, 30)
    for z, x, channel in zip(
        found.reshape(-1), images.reshape(-1), np.indices(images.shape)[1].reshape(-1), strict=True
    ):
        exact = (Fraction(float(x)) - Fraction(mean[channel])) / Fraction(std[channel])
        others = np.nextafter(z, np.float32([-np.inf, np.inf]))
        assert all(abs(Fraction(float(z)) - exact) <= abs(Fraction(float(other)) - exact) for other in others)
    assert nearest_inputs(images, None).tolist() == images.reshape(4, 30).tolist()
