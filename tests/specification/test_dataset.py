"""Data sets come back from every file format as written, and bad files are refused in one line."""

from __future__ import annotations

import gzip
import hashlib
import struct

import numpy as np
import pytest

from mipverify.errors import InputError
from mipverify.specification import load_dataset

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (5, 4, 3), np.uint8)
LABELS = np.array([3, 0, 1, 9, 2], np.uint8)
SCALED = IMAGES.astype(np.float32) / np.float32(255)


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_npz(folder, **arrays):
    np.savez_compressed(folder / "some.npz", **arrays)
    return folder / "some.npz"


def write_idx(folder, images=None, labels=None):
    (folder / "t-images-idx3-ubyte").write_bytes(idx(IMAGES) if images is None else images)
    (folder / "t-labels-idx1-ubyte").write_bytes(idx(LABELS) if labels is None else labels)
    return folder / "t-images-idx3-ubyte"


def write_idx_gz(folder):
    plain = write_idx(folder)
    for name in (plain.name, plain.name.replace("images-idx3", "labels-idx1")):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    return folder / f"{plain.name}.gz"


def write_csv(folder, text=None, name="some.csv"):
    rows = [",".join(map(str, [label, *image.reshape(-1)])) for label, image in zip(LABELS, IMAGES, strict=True)]
    content = ("\n".join(rows) if text is None else text).encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder / name


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: write_npz(folder, images=IMAGES, labels=LABELS),
        lambda folder: write_npz(folder, images=SCALED, labels=LABELS.astype(np.float32)[:, None]),
        write_idx,
        write_idx_gz,
        write_csv,
        lambda folder: write_csv(folder, name="some.csv.gz"),
        lambda folder: write_csv(folder, "label,p0,p1\n" + write_csv(folder).read_text()),
    ],
    ids=["npz", "npz floats", "idx", "idx.gz", "csv", "csv.gz", "csv with header"],
)
def test_round_trip(tmp_path, write):
    path = write(tmp_path)
    data = load_dataset(path, scale="1/255" if ".csv" in path.name else None).fit_to((1, 4, 3))
    assert len(data) == 5
    assert data.images.dtype == np.float32
    np.testing.assert_array_equal(data.images, SCALED.reshape(5, 1, 4, 3))
    np.testing.assert_array_equal(data.image(2), SCALED[2].reshape(1, 4, 3))
    assert data.labels.tolist() == LABELS.tolist()
    assert data.label(3) == 9
    assert data.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_scaling_gives_the_float32_nearest_to_each_grey_level(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 256)
    image = load_dataset(write_npz(tmp_path, images=levels, labels=np.array([0]))).image(0)
    assert image.tolist() == [float(np.float32(k / 255)) for k in range(256)]
    assert image.min() == 0.0
    assert image.max() == 1.0


def test_floats_stay_what_they_are(tmp_path):
    stored = np.array([[0.1, -3.0, 250.0]])
    assert load_dataset(write_npz(tmp_path, images=stored, labels=[0])).images.tolist() == stored.tolist()
    text = load_dataset(write_csv(tmp_path, "1,0,1\n0,1,1"))
    assert text.images.tolist() == [[0, 1], [1, 1]], "whole numbers up to 1 are no grey levels"


def test_channels_last_becomes_channels_first(tmp_path):
    images = RNG.integers(0, 256, (2, 8, 6, 3), np.uint8)
    data = load_dataset(write_npz(tmp_path, images=images, labels=[0, 1]))
    fitted = data.fit_to((1, 3, 8, 6))
    assert fitted.image_shape == (1, 3, 8, 6)
    np.testing.assert_array_equal(fitted.image(1)[0], np.moveaxis(data.image(1), -1, 0))
    np.testing.assert_array_equal(fitted.images[1], fitted.image(1))
    assert data.fit_to((144,)).image(1).tolist() == data.image(1).reshape(-1).tolist()
    for shape in ((1, 3, 6, 8), (3, 8, 7), (1, 10)):
        with pytest.raises(InputError, match=r"\(8, 6, 3\), the network takes"):
            data.fit_to(shape)
    with pytest.raises(InputError, match="a batch of 4: export it for one image"):
        data.fit_to((4, 3, 8, 6))


@pytest.mark.parametrize("index", [-1, 5, 10**6])
def test_an_index_out_of_range_is_refused(tmp_path, index):
    data = load_dataset(write_idx(tmp_path))
    for ask in (data.image, data.label):
        with pytest.raises(InputError, match=f"no image {index}: 5 images"):
            ask(index)


def nan_images():
    images = SCALED.copy()
    images[3, 0, 0] = np.nan
    return images


def test_a_pixel_that_is_not_finite_is_refused_when_asked_for(tmp_path):
    data = load_dataset(write_npz(tmp_path, images=nan_images(), labels=LABELS))
    assert np.isfinite(data.image(0)).all()
    for ask in (lambda: data.image(3), lambda: data.images):
        with pytest.raises(InputError, match="image 3 has a pixel"):
            ask()


def damaged(folder, keep):
    path = write_npz(folder, images=IMAGES, labels=LABELS)
    path.write_bytes(path.read_bytes()[:keep])
    return path


def lonely(folder):
    path = write_idx(folder)
    (folder / "t-labels-idx1-ubyte").unlink()
    return path


def damaged_gz(folder):
    path = write_idx_gz(folder)
    path.write_bytes(path.read_bytes()[:-12])
    return path


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda f: f / "none.npz", "No such file"),
        (lambda f: f / "none.csv", "No such file"),
        (lambda f: f / "image.png", "data must be"),
        (lambda f: damaged(f, 200), "damaged"),
        (lambda f: damaged(f, 0), "damaged"),
        (lambda f: write_npz(f, images=IMAGES, y=LABELS), "no array 'labels'; found images, y"),
        (lambda f: write_npz(f, images=IMAGES, labels=LABELS[:4]), "5 images, but labels"),
        (lambda f: write_npz(f, images=IMAGES, labels=LABELS - 0.5), "label 0 is 2.5"),
        (lambda f: write_npz(f, images=IMAGES, labels=np.array(list("abcde"))), "whole numbers"),
        (lambda f: write_npz(f, images=IMAGES, labels=np.array([None] * 5)), "pickled objects"),
        (lambda f: write_npz(f, images=IMAGES + 0j, labels=LABELS), "complex"),
        (lambda f: write_npz(f, images=IMAGES.astype(int) + 2**60, labels=LABELS), "beyond 2\\^53"),
        (lambda f: write_npz(f, images=IMAGES[:0], labels=LABELS[:0]), "shape"),
        (lambda f: write_idx(f, images=idx(IMAGES)[:-1]), "60 bytes expected"),
        (lambda f: write_idx(f, images=idx(IMAGES) + b"x"), "61 found"),
        (lambda f: write_idx(f, images=b"\0\0\x0d\1\0\0\0\0"), "type 0x0d"),
        (lambda f: write_idx(f, images=b"GIF89a"), "not an IDX"),
        (lambda f: write_idx(f, labels=idx(LABELS[:2])), "5 images, but labels"),
        (lonely, "not beside it"),
        (damaged_gz, "damaged gzip"),
        (lambda f: write_csv(f, ""), "no line"),
        (lambda f: write_csv(f, "1,2,3\n1,2"), "not a table"),
        (lambda f: write_csv(f, "1,2,x"), "not a table"),
        (lambda f: write_csv(f, "1,2,nan"), "image 0 .* not finite"),
        (lambda f: write_csv(f, "1\n2"), "no line"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, write, message):
    path = write(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        load_dataset(path)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.float32, np.float64])
def test_scales_beyond_any_float(tmp_path, kind):
    path = write_npz(tmp_path, images=np.arange(4).reshape(1, 2, 2).astype(kind), labels=np.zeros(1, int))
    with pytest.raises(InputError, match="image 0 has a pixel that is not finite"):
        load_dataset(path, scale="1e400", domain=None).image(0)
    assert load_dataset(path, scale="1e-400", domain=None).image(0).tolist() == [[0, 0], [0, 0]]
    long = f"0.25{'0' * 400}1"  # a quotient of two numbers that no float stands for
    assert load_dataset(path, scale=long, domain=None).image(0).tolist() == [[0, 0.25], [0.5, 0.75]]
