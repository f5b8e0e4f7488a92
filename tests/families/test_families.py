"""Families of images on the bundled network: no sampled image beats what was proven, and witnesses are replayed."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest

import mipverify
from mipverify import Family, InputError, Network

ZOO = files("mipverify.models.zoo")
PATH = str(ZOO / "mnist_small_linf0.1.onnx")
GAP = 0.02


@lru_cache
def network() -> Network:
    return mipverify.load(PATH)


@lru_cache
def sample(index: int) -> tuple[np.ndarray, int]:
    data = mipverify.load_dataset(str(ZOO / "mnist_100.npz")).fit_to(network().input_shape)
    return data.image(index), data.label(index)


def classes(images: np.ndarray) -> np.ndarray:
    """Scores (N, 10) of flat images by ONNX Runtime."""
    session = onnxruntime.InferenceSession(PATH, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    x = images.astype(np.float32)
    rows = [session.run(None, {given.name: row.reshape(1, 1, 28, 28)})[0].reshape(-1) for row in x]
    return np.stack(rows)


def wrong(images: np.ndarray, label: int) -> np.ndarray:
    scores = classes(images)
    return np.asarray(np.delete(scores, label, axis=1).max(axis=1) >= scores[:, label])


def parameters(family: Family, radius: float, count: int) -> np.ndarray:
    """Parameters (count, k) of the family at a radius: inside, at its border, and in its corners."""
    rng, own = np.random.default_rng(0), family.perturbation
    low, high = own.limits
    size = radius * own.scale
    step = rng.uniform(-1, 1, (count, own.size))
    step[::2] = np.sign(step[::2])
    step[1::4] *= rng.random((len(step[1::4]), own.size)) < 0.5
    p = np.clip(own.center + step * size, np.maximum(low, -size), np.minimum(high, size))
    if own.matrix is not None and own.offset is not None:
        total = np.maximum((p @ own.matrix.T / own.offset).max(axis=1, keepdims=True), 1.0)
        p = p / total
    return p


def families(index: int) -> dict[str, Family]:
    image = sample(index)[0]
    return {
        "blur": mipverify.blur(image, 3),
        "brightness and contrast": mipverify.brightness_and_contrast(image, 0.5, 0.5),
        "brightness": mipverify.brightness_and_contrast(image, 0.5, 0, clip=None),
        "contrast": mipverify.brightness_and_contrast(image, 0, 0.7),
        "mixture": mipverify.mixture(image, sample(index + 1)[0]),
        "mixture and noise": mipverify.mixture(image, sample(index + 1)[0]).with_noise(0.01),
    }


@pytest.mark.parametrize("name", ["brightness and contrast", "contrast", "mixture", "mixture and noise"])
def test_no_sample_is_closer_than_the_distance(name: str) -> None:
    index = 3
    family, label = families(index)[name], sample(index)[1]
    found = family.minimum_distortion(network(), label, gap=GAP, timeout=60)
    assert found.status == ("none" if name == "contrast" else "optimal"), found
    images = np.stack([family.image(p) for p in parameters(family, found.lower * (1 - 1e-6), 300)])
    assert not wrong(images, label).any()
    if found.witness is None:
        assert found.lower == 1
        return
    assert found.upper is not None
    assert found.upper - found.lower <= GAP * found.upper
    made = np.array(found.statistics["parameters"])
    assert (np.abs(made) <= found.upper * family.perturbation.scale * (1 + 1e-9)).all()
    assert np.array_equal(found.witness.input.reshape(-1), family.image(made).astype(np.float32))
    assert wrong(found.witness.input.reshape(1, -1), label).all()


@pytest.mark.parametrize(
    ("name", "radius"),
    [
        ("blur", 0.3),
        ("brightness and contrast", 0.3),
        ("brightness", 0.3),
        ("mixture", 0.5),
        ("mixture and noise", 0.5),
    ],
)
def test_no_sample_violates_what_holds(name: str, radius: float) -> None:
    family, label = families(3)[name], sample(3)[1]
    verdict = family.verify(network(), label, radius=radius, timeout=60)
    assert verdict.verdict == "holds", verdict
    images = np.stack([family.image(p) for p in parameters(family, radius, 300)])
    assert not wrong(images, label).any()


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("name", ["blur", "brightness and contrast", "mixture"])
def test_a_violation_is_an_image_of_the_family(name: str, noisy: bool) -> None:
    image, label = sample(3)
    if name == "blur":  # what the ill_scaled image shows is called wrong instead
        label = (label + 1) % 10
    family = families(3)[name]
    family = family.with_noise(0.02) if noisy else family
    verdict = family.verify(network(), label, timeout=60)
    assert verdict.verdict == "violated", verdict
    assert verdict.witness is not None
    made = np.array(verdict.statistics["parameters"])
    plain, noise = made[: len(made) - 784 * noisy], made[len(made) - 784 * noisy :]
    if name == "blur":
        kernel = np.insert(plain, 4, 1 - plain.sum()).reshape(3, 3)
        assert (kernel >= -1e-7).all()
        padded = np.pad(image.reshape(28, 28).astype(np.float64), 1)
        changed = sum(kernel[i, j] * padded[i : i + 28, j : j + 28] for i in range(3) for j in range(3)).reshape(-1)
    elif name == "mixture":
        assert 0 <= plain[0] <= 1
        changed = (1 - plain[0]) * image.reshape(-1) + plain[0] * sample(4)[0].reshape(-1)
    else:
        assert (np.abs(plain) <= 0.5).all()
        changed = np.clip((1 + plain[1]) * image.reshape(-1) + plain[0], 0, 1)
    if noisy:
        assert (np.abs(noise) <= 0.02).all()
        changed = changed + noise
        changed = np.clip(changed, 0, 1) if name == "brightness and contrast" else changed
    assert verdict.witness.input.reshape(-1) == pytest.approx(changed, abs=1e-6)
    assert wrong(verdict.witness.input.reshape(1, -1), label).all()


def test_noise_moves_saturated_pixels_as_well() -> None:
    family = mipverify.brightness_and_contrast(np.array([0.25, 0.9, 1.0]), 0.5, 0.0).with_noise(0.125)
    assert family.image([0.5, 0, 0, -0.125, 0.125]) == pytest.approx([0.75, 0.875, 1.0])


DEGENERATE: dict[str, Any] = {
    "kernel of one": lambda image: mipverify.blur(image, 1),
    "no change": lambda image: mipverify.brightness_and_contrast(image, 0, 0),
    "no change, unclipped": lambda image: mipverify.brightness_and_contrast(image, 0, 0, clip=None),
    "an image with itself": lambda image: mipverify.mixture(image, image),
    "an image with itself, clipped": lambda image: mipverify.mixture(image, image, clip=(0, 1)),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_families_of_one_image(name: str) -> None:
    image, label = sample(0)
    family = DEGENERATE[name](image)
    assert family.verify(network(), label, timeout=20).verdict == "holds"
    assert family.verify(network(), (label + 1) % 10, timeout=20).verdict == "violated"
    assert family.minimum_distortion(network(), label, timeout=20).status == "none"
    wrong_from_the_start = family.minimum_distortion(network(), (label + 1) % 10, timeout=20)
    assert (wrong_from_the_start.lower, wrong_from_the_start.upper) == (0, 0)


IMAGE = np.full((4, 4), 0.5)
BAD: dict[str, tuple[Any, str]] = {
    "even kernel": (lambda: mipverify.blur(IMAGE, 4), "odd"),
    "kernel that is no number": (lambda: mipverify.blur(IMAGE, cast(int, "a")), "odd size, not 'a'"),
    "flat image": (lambda: mipverify.blur(IMAGE.reshape(-1), 3), "two axes"),
    "image that is no number": (lambda: mipverify.blur(np.full((4, 4), np.nan), 3), "pixel 0"),
    "brightness": (lambda: mipverify.brightness_and_contrast(IMAGE, -0.1), "brightness"),
    "contrast": (lambda: mipverify.brightness_and_contrast(IMAGE, 0.1, float("nan")), "contrast"),
    "outside of clip": (lambda: mipverify.brightness_and_contrast(2 * IMAGE + 1), "pixel 0"),
    "clip": (lambda: mipverify.brightness_and_contrast(IMAGE, clip=(1, 0)), "clip"),
    "sizes": (lambda: mipverify.mixture(IMAGE, IMAGE[:2]), "16 and 8"),
    "noise": (lambda: mipverify.mixture(IMAGE, IMAGE).with_noise(0), "noise"),
    "noise twice": (lambda: mipverify.mixture(IMAGE, IMAGE).with_noise(1).with_noise(1), "noise"),
    "network": (lambda: mipverify.mixture(IMAGE, IMAGE).verify(network(), 3), "784"),
    "label": (lambda: mipverify.blur(sample(0)[0], 3).verify(network(), 10), "label"),
    "parameters": (lambda: mipverify.blur(IMAGE, 3).image([0.5]), "8 parameters"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_in_one_line(name: str) -> None:
    call, says = BAD[name]
    with pytest.raises(InputError) as caught:
        call()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
