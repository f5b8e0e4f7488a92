"""What a transformed image is: agreed with another formula, with scipy, and decided exactly to float32."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy import ndimage

from mipverify import InputError
from mipverify.specification.normalization import Normalization
from mipverify.specification.threats import trigonometry
from mipverify.specification.threats.pixels import Pixels
from mipverify.specification.threats.transform import Transforms, nearest_float32
from tests.proof.transformed import random_transforms, seen


@pytest.mark.parametrize("seed", range(6))
def test_values_are_those_of_another_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, channels = [((6, 7), None), ((3, 5, 6), 0), ((5, 5, 3), 2)][seed % 3]
    transforms = random_transforms(rng, shape, channels)
    for parameters in rng.uniform(-1, 1, (5, len(transforms.names))) * transforms.inward:
        x = transforms.values(parameters[None])[0]
        norm = transforms.normalization
        x = x if norm is None else norm.undone(x)
        assert np.abs(x[transforms.pixels.entries] - seen(transforms.image, transforms.named(parameters))).max() < 1e-12


def test_turns_the_way_that_scipy_does_and_moves_right_and_down() -> None:
    image = np.random.default_rng(0).random((9, 9)).astype(np.float32).astype(float)
    turned = Transforms(image[None], Pixels((9, 9), None), {"rotation": Fraction(30)}).values(np.array([[20.0]]))
    other = ndimage.rotate(image, 20, reshape=False, order=1, mode="grid-constant")
    assert np.abs(turned.reshape(9, 9) - other).max() < 1e-12
    moved = Transforms(image[None], Pixels((9, 9), None), {"right": Fraction(2), "down": Fraction(1)})
    expected = np.zeros((9, 9))
    expected[1:, 2:] = image[:-1, :-2]
    assert np.array_equal(moved.float32(np.array([2.0, 1.0])), expected.astype(np.float32).reshape(-1))


@pytest.mark.parametrize("normalized", [False, True])
def test_the_nearest_float32_is_that_of_rational_arithmetic(normalized: bool) -> None:
    rng = np.random.default_rng(1)
    image = rng.random((3, 6, 5)).astype(np.float32).astype(float)
    norm = Normalization.of(["0.5", "0.4", "0.3"], ["0.2", "1/3", "0.25"], (3, 6, 5)) if normalized else None
    radius = {"rotation": Fraction(90), "right": Fraction(3), "scaling": Fraction(1, 4)}
    transforms = Transforms(image, Pixels((3, 6, 5), 0), radius, norm)
    for parameters in rng.uniform(-1, 1, (4, 3)) * transforms.inward:
        cosine, sine, _ = trigonometry.exact_cosine_sine(Fraction(parameters[0]))
        right, factor = Fraction(parameters[1]), 1 + Fraction(parameters[2])
        found = transforms.float32(parameters)
        assert found is not None
        for entry in range(90):
            channel, row, column = np.unravel_index(entry, (3, 6, 5))
            u, v = (Fraction(2 * int(column) - 4, 2) - right) / factor, Fraction(2 * int(row) - 5, 2) / factor
            x, y = u * cosine - v * sine + 2, u * sine + v * cosine + Fraction(5, 2)
            hats = ((max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j)), i, j) for i in range(6) for j in range(5))
            value = sum((w * Fraction(image[channel, i, j]) for w, i, j in hats), Fraction(0))
            if norm is not None:
                mean, std = norm.pairs[norm.which[entry]]
                value = (value - mean) / std
            assert found[entry] == nearest_float32(value)


def test_cosine_and_sine_are_as_close_as_they_say() -> None:
    for degrees in [Fraction(k, 7) for k in range(-1260, 1261, 97)]:
        cosine, sine, off = trigonometry.exact_cosine_sine(degrees)
        assert abs(cosine**2 + sine**2 - 1) <= 4 * off + off * off
        radians = float(degrees) * np.pi / 180
        near = trigonometry.cosine_sine(np.array([radians]))
        # The float angle is off by a few times 2^-52 itself.
        assert abs(Fraction(float(near[0][0])) - cosine) <= Fraction(trigonometry.ERROR) + Fraction(2e-15)
        assert abs(Fraction(float(near[1][0])) - sine) <= Fraction(trigonometry.ERROR) + Fraction(2e-15)


def test_what_is_no_image_is_refused() -> None:
    assert Pixels.of((1, 3, 8, 8)).entries.shape == (3, 8, 8)
    assert Pixels.of((8, 8, 3)).entries[2, 0, 0] == 2
    assert (Pixels.of((784,)).height, Pixels.of((784,)).width) == (28, 28)
    assert Pixels.of((60,), (3, 4, 5)).entries.shape == (3, 4, 5)
    with pytest.raises(InputError, match="no images"):
        Pixels.of((1, 5))
