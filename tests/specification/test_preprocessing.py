"""A pipeline's mean and std move the input set exactly, and images become what a network takes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mipverify import minimum_distortion, robustness
from mipverify.errors import InputError
from mipverify.specification import load_dataset
from mipverify.specification.perturbation import Perturbation
from mipverify.specification.preprocessing import Preprocessing
from mipverify.specification.sets import BallInBox
from tests.soundness.nets import dense

F = Fraction
MEAN, STD = ("0.4914", "0.4822", "0.4465"), ("0.2471", "1/4", "0.2616")


def exact_ball(z: np.ndarray, image: np.ndarray, mean: list[F], std: list[F], norm: str) -> F:
    """The distance (its square in l2) in pixels of a network input from an image, in rational numbers."""
    steps = [
        abs(F(float(v)) * s + m - F(float(x)))
        for v, x, m, s in zip(z.reshape(-1), image.reshape(-1), mean, std, strict=True)
    ]
    return {"linf": max(steps), "l1": sum(steps, F(0)), "l2": sum((s * s for s in steps), F(0))}[norm]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 255), min_size=3, max_size=3),
    st.sampled_from(["0", "0.01", "8/255", "0.3"]),
    st.sampled_from(["linf", "l1", "l2"]),
    st.integers(0, 2**32 - 1),
)
def test_membership_is_that_of_pixels(levels, eps, norm, seed):
    image = (np.array(levels, np.float32) / np.float32(255)).reshape(3, 1)
    mean, std = [F(m) for m in MEAN], [F(s) for s in STD]
    case = robustness(image, 0, eps, num_classes=2, norm=norm, mean=MEAN, std=STD).cases[0]
    rng = np.random.default_rng(seed)
    inputs, box = case.inputs, case.box
    for low, value, m, s in zip(box.lower, image.reshape(-1), mean, std, strict=True):
        exact = (max(F(float(value)) - F(eps), F(0)) - m) / s
        assert F(float(low)) <= exact < F(float(np.nextafter(low, np.inf))), "tightest on the outside"
    corner = np.where(rng.random(3) < 0.5, box.float32_lower, box.float32_upper)
    inside = inputs.nearest_float32(box.float32_lower + rng.random((6, 3)) * (box.float32_upper - box.float32_lower))
    near = np.nextafter(inside, np.where(rng.random((6, 3)) < 0.5, np.float32(-9), np.float32(9)))
    radius = F(eps) ** (2 if norm == "l2" else 1)
    pinned = box.float32_lower == box.float32_upper
    for z in (corner, *inside, *near):
        pixels = [F(float(v)) * s + m for v, m, s in zip(z, mean, std, strict=True)]
        legal = all(0 <= x <= 1 for x in pixels) and exact_ball(z, image, mean, std, norm) <= radius
        if not pinned.any():
            assert inputs.contains(z) == legal
    if F(eps) > 0 and norm != "linf":
        assert inputs.contains(inputs.nearest_float32(box.center[None])[0]), "the middle can be moved into the ball"


@pytest.mark.parametrize("norm", ["linf", "l1", "l2"])
def test_the_ball_of_proofs_holds_the_exact_one(norm):
    rng = np.random.default_rng(3)
    image = rng.random(40).astype(np.float32)
    mean, std = rng.random(40), rng.random(40) + 0.05
    means, stds = ([F(repr(float(v))) for v in side] for side in (mean, std))
    inputs = Perturbation.around(image, norm=norm, mean=mean, std=std).within("0.125")
    box = inputs.box
    for _ in range(200):
        step = rng.normal(size=40)
        step /= {"linf": np.abs(step).max(), "l1": np.abs(step).sum(), "l2": np.sqrt((step**2).sum())}[norm]
        x = [F(float(v)) + F(float(d)) / 8 * F(999_999_999, 10**9) for v, d in zip(image, step, strict=True)]
        z = [(v - m) / s for v, m, s in zip(x, means, stds, strict=True)]
        if not all(0 <= v <= 1 for v in x):
            continue
        assert all(F(float(low)) <= v <= F(float(high)) for low, v, high in zip(box.lower, z, box.upper, strict=True))
        if isinstance(inputs, BallInBox):
            ball = inputs.ball
            steps = [abs(v - F(float(c))) / F(float(s)) for v, c, s in zip(z, ball.center, ball.scale, strict=True)]
            assert ball.norm.at_most(map(abs, steps), ball.radius)


@pytest.mark.parametrize("norm", ["linf", "l1", "l2"])
def test_distances_are_those_of_pixels(norm):
    # Class 1 wins where z0 reaches 1: where x0 reaches mean + std = 0.8.
    network = dense([(np.array([[0, 0], [1, 0]]), np.array([1, 0]))])
    found = minimum_distortion(
        network, np.array([0.5, 0.5], np.float32), 0, norm=norm, mean=["0.5", "0.1"], std=["0.3", "2"], timeout=20
    )
    assert found.status == "optimal"
    assert found.lower <= 0.3 <= found.upper
    assert found.upper == pytest.approx(0.3, rel=1e-3)
    assert found.witness.input[0] >= 1
    assert F(float(found.witness.input[0])) * F("0.3") + F("0.5") - F("0.5") <= F(found.upper)


def write(folder, images, labels=None):
    path = folder / "some.npz"
    np.savez(path, images=images, labels=np.zeros(len(images), int) if labels is None else labels)
    return path


LEVELS = np.arange(2 * 3 * 6 * 5, dtype=np.uint8).reshape(2, 3, 6, 5)  # nchw


@pytest.mark.parametrize(
    ("stored", "shape", "layout"),
    [
        (LEVELS, (1, 3, 6, 5), None),
        (np.moveaxis(LEVELS, 1, 3), (1, 3, 6, 5), None),
        (LEVELS, (1, 6, 5, 3), None),
        (LEVELS, (1, 6, 5, 3), "nchw"),
        (np.moveaxis(LEVELS, 1, 3), (1, 6, 5, 3), "nhwc"),
        (LEVELS.reshape(2, 90), (1, 6, 5, 3), "nchw"),
        (np.moveaxis(LEVELS, 1, 3).reshape(2, 90), (1, 3, 6, 5), "nhwc"),
        (LEVELS.reshape(2, 90), (1, 3, 6, 5), None),
        (LEVELS, (1, 90), "nchw"),
    ],
)
def test_channels_are_where_the_network_takes_them(tmp_path, stored, shape, layout):
    data = load_dataset(write(tmp_path, stored), scale=1, domain=None, layout=layout, mean=[1, 2, 3], std="2")
    fitted = data.fit_to(shape)
    expected = np.moveaxis(LEVELS, 1, 3) if shape[-1] == 3 else LEVELS
    np.testing.assert_array_equal(fitted.image(1).reshape(-1), expected[1].reshape(-1))
    assert fitted.image_shape == shape
    channel = np.broadcast_to(np.arange(1, 4).reshape(3, 1, 1), (3, 6, 5))
    channel = np.moveaxis(channel, 0, 2) if shape[-1] == 3 else channel
    assert fitted.mean.reshape(-1).tolist() == channel.reshape(-1).tolist()
    assert fitted.std == 2


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("shape", [(64, 8, 8), (8, 8, 64), (64, 4, 4), (4, 4, 64), (4, 5, 3), (1, 28, 3), (2, 5, 7)])
def test_flat_images_are_refused_where_the_channels_of_the_network_are_open(tmp_path, shape, layout):
    data = load_dataset(write(tmp_path, np.zeros((1, int(np.prod(shape))), np.uint8)), layout=layout)
    with pytest.raises(InputError, match="may be nchw or nhwc"):
        data.fit_to((1, *shape))


def test_cubes_need_a_layout(tmp_path):
    cube = np.arange(27, dtype=np.uint8).reshape(1, 3, 3, 3)
    path = write(tmp_path, cube)
    with pytest.raises(InputError, match="state the layout"):
        load_dataset(path, mean=[1, 2, 3]).fit_to((1, 3, 3, 3)).mean  # noqa: B018
    with pytest.raises(InputError, match="may be nchw or nhwc"):
        load_dataset(path, layout="nhwc").fit_to((1, 3, 3, 3))
    with pytest.raises(InputError, match="may be nchw or nhwc"):
        load_dataset(write(tmp_path, cube.reshape(1, 27)), layout="nhwc").fit_to((1, 3, 3, 3))


def test_features_have_their_own_mean(tmp_path):
    table = np.array([[20, 180, 5], [30, 160, 7]])
    data = load_dataset(write(tmp_path, table), domain=(0, 200), mean=[25, 170, 6], std=[5, 10, 1]).fit_to((1, 3))
    box = robustness(data.image(0), 0, 1, num_classes=2, domain=(0, 200), mean=data.mean, std=data.std).cases[0].box
    np.testing.assert_allclose(box.center, [-1, 1, -1])
    np.testing.assert_allclose(box.radius, [0.2, 0.1, 1])


@pytest.mark.parametrize(
    ("given", "factor"),
    [
        ({}, F(1, 255)),
        ({"domain": ("0", "1/2")}, F(1, 255)),
        ({"domain": None}, F(1, 255)),
        ({"domain": (0, 255)}, F(1)),
        ({"domain": ("0", "255.0")}, F(1)),
        ({"domain": (-1, 1), "scale": "2/255"}, F(2, 255)),
        ({"scale": 1, "domain": (-100, 300)}, F(1)),
    ],
)
def test_what_pixels_are_multiplied_by(tmp_path, given, factor):
    data = load_dataset(write(tmp_path, LEVELS), **given)
    assert data.scale == factor
    expected = [float(np.float32(float(int(level) * factor))) for level in LEVELS[1].reshape(-1)]
    assert data.image(1).reshape(-1).tolist() == expected


@pytest.mark.parametrize("domain", [(-1, 1), (0, 2), ("-0.5", "300"), (0, 100)])
def test_other_domains_leave_open_what_a_pixel_is(tmp_path, domain):
    with pytest.raises(InputError, match="state the scale"):
        load_dataset(write(tmp_path, LEVELS), domain=domain)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint16, np.int8])
def test_other_integers_are_no_pixels(tmp_path, kind):
    table = np.array([[3, 100, 7]], kind)
    path = write(tmp_path, table)
    assert load_dataset(path, domain=(0, 200)).image(0).tolist() == [3, 100, 7]
    assert load_dataset(path, domain=None).images.dtype == np.float64
    assert load_dataset(path, scale="1/100").image(0)[1] == 1
    with pytest.raises(InputError, match="image 0 holds 3, outside of the domain 0,1: whole numbers"):
        load_dataset(path).image(0)


def test_floats_keep_their_type_when_they_are_scaled(tmp_path):
    for kind in (np.float32, np.float64):
        data = load_dataset(write(tmp_path, np.array([[51, 102.0]], kind)), scale="1/255")
        assert data.images.dtype == kind
        assert data.image(0).tolist() == [float(kind(0.2)), float(kind(0.4))]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scale": 0}, "scale must be positive"),
        ({"scale": "-1"}, "scale must be positive"),
        ({"scale": "x"}, "scale must be a finite number"),
        ({"std": [1, 0]}, "std must be positive"),
        ({"mean": []}, "mean holds no number"),
        ({"mean": ["1", "y"]}, "mean must be a finite number"),
        ({"layout": "hwc"}, "layout 'hwc' is not one of nchw, nhwc"),
        ({"domain": (1, 0)}, "domain is empty"),
        ({"domain": (1,)}, "two numbers"),
    ],
)
def test_settings_that_say_nothing(given, message):
    with pytest.raises(InputError, match=message):
        Preprocessing.of(**given)


def test_the_record_is_the_same_for_the_same_settings(tmp_path):
    path = write(tmp_path, LEVELS)
    one = load_dataset(path, mean="0.10", std="2/4", domain=("0", "1.0")).record()
    assert one == load_dataset(path, mean=0.1, std=0.5, scale="10/2550").record()
    assert one == {"domain": "0,1", "scale": "1/255", "mean": ["0.1"], "std": ["0.5"], "layout": None}


def test_a_mean_that_fits_no_axis_is_refused():
    image = np.zeros((1, 3, 4, 5), np.float32)
    with pytest.raises(InputError, match="mean holds 4 numbers"):
        robustness(image, 0, "0.1", num_classes=2, mean=[1, 2, 3, 4])
    shaped = np.array([0.1, 0.2, 0.3, 0.4], object).reshape(1, 1, 4, 1)
    assert robustness(image, 0, "0.1", num_classes=2, mean=shaped).cases[0].box.size == 60
    with pytest.raises(InputError, match="does not fit"):
        robustness(image, 0, "0.1", num_classes=2, mean=shaped.reshape(1, 4, 1, 1))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"domain": ("0", "1e400")}, "domain limit 1e400"),
        ({"domain": ("-1e400", "1")}, "domain limit -1e400"),
        ({"mean": ["0.5", "1e400"]}, "mean 1000"),
        ({"mean": "-1e400"}, "mean -1000"),
        ({"std": "1e400"}, "std 1000"),
        ({"std": ["1", "1e-400"]}, "std 0.0000"),
    ],
)
def test_what_is_larger_than_all_floats_is_refused(given, words):
    with pytest.raises(InputError, match=f"{words}.*is beyond every float64"):
        Preprocessing.of(**given)
    Preprocessing.of(domain=("1e-400", "1e308"), mean="1e-400", std="1e-300")  # harmless
