"""Brightness and contrast as stated: the family of images covers the stated numbers, not the floats next to them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from mipverify import InputError
from mipverify.engine.threats.lights import light
from mipverify.engine.threats.sample import Sample
from mipverify.engine.threats.threat import Limits
from tests.soundness.nets import dense, random_layers


@pytest.mark.parametrize("text", ["0.3", "0.7", "0.1", "1/3"])
def test_family_covers_stated_radius(text: str) -> None:
    made = light({"brightness": text, "contrast": text}).family(Sample(np.full(4, 0.5, np.float32), 0))
    stated = Fraction(text)
    box = made.perturbation.within(1)
    assert all(Fraction(float(upper)) >= stated for upper in box.upper)
    assert all(Fraction(float(lower)) <= -stated for lower in box.lower)


def test_domain_between_floats_is_refused() -> None:
    made = dense(random_layers(np.random.default_rng(0), (4, 5, 3)))
    one = Sample(np.full(4, 0.5, np.float32), 0, domain=("1/3", "1"))
    with pytest.raises(InputError, match="domain"):
        light({"brightness": "0.1"}).verify(made, one, Limits(5))
