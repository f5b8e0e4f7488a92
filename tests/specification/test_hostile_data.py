"""Data files that lie about their size, hold code or expand absurdly are refused in one line, and at once."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mipverify.errors import InputError
from mipverify.specification import load_dataset

LABELS = np.zeros(2, np.uint8)


def npy(array: np.ndarray, shape: object = None, descr: str | None = None) -> bytes:
    """A .npy file whose header may say another shape or type than its content has."""
    header = {
        "descr": descr or array.dtype.str,
        "fortran_order": False,
        "shape": array.shape if shape is None else shape,
    }
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + array.tobytes()


def archive(folder: Path, images: bytes, labels: bytes | None = None, kind: int = zipfile.ZIP_STORED) -> Path:
    path = folder / "some.npz"
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr("images.npy", images)
        file.writestr("labels.npy", npy(LABELS) if labels is None else labels)
    return path


class Code:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path.touch, (Path("was-here"),)  # type: ignore[return-value]


def with_objects(folder: Path) -> Path:
    path = folder / "some.npz"
    np.savez(path, images=np.array([Code(), Code()], object), labels=LABELS)
    return path


def bomb(folder: Path) -> Path:
    header = npy(np.zeros((0, 1), np.uint8), (300, 2**20))
    path = folder / "some.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        with file.open("images.npy", "w") as member:
            member.write(header)
            for _ in range(300):
                member.write(bytes(2**20))
        file.writestr("labels.npy", npy(np.zeros(300, np.uint8)))
    return path


def gz_bomb(folder: Path, name: str) -> Path:
    with gzip.open(folder / name, "wb") as file:
        for _ in range(300):
            file.write(b"0" * 2**20)
    (folder / name.replace("images", "labels").replace("idx3", "idx1")).touch()
    return folder / name


def idx(folder: Path, shape: tuple[int, ...], content: bytes = b"", count: int = 2) -> Path:
    header = b"\0\0\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    (folder / "t-images-idx3-ubyte").write_bytes(header + content)
    (folder / "t-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + struct.pack(">I", count) + bytes(count))
    return folder / "t-images-idx3-ubyte"


def csv(folder: Path, text: str) -> Path:
    (folder / "some.csv").write_text(text)
    return folder / "some.csv"


IMAGES = np.zeros((2, 3), np.uint8)
FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "pickled objects": (with_objects, "'images' holds pickled objects"),
    "a pickle": (lambda f: archive(f, pickle.dumps([1])), "damaged .npz"),
    "a header of 10^12 entries": (lambda f: archive(f, npy(IMAGES, (10**6, 10**6))), "says shape"),
    "a header of 10^30 entries": (lambda f: archive(f, npy(IMAGES, (10**15, 10**15))), "says shape"),
    "a header of a wider type": (lambda f: archive(f, npy(IMAGES, descr="<f8")), "says shape"),
    "a negative size": (lambda f: archive(f, npy(IMAGES, (-2, -3))), "says shape|damaged"),
    "labels that lie": (lambda f: archive(f, npy(IMAGES), npy(LABELS, (10**12,))), "'labels' says shape"),
    "no array": (lambda f: archive(f, b"no array at all"), "damaged .npz"),
    "an empty member": (lambda f: archive(f, b""), "damaged .npz"),
    "text as labels": (lambda f: archive(f, npy(IMAGES), npy(np.array(["a", "b"]))), "whole numbers"),
    "a zip bomb": (bomb, "expands from"),
    "idx of 10^18 entries": (lambda f: idx(f, (2**30, 2**30, 2**30), bytes(9)), "bytes expected"),
    "idx too short": (lambda f: idx(f, (2, 3), bytes(5)), "6 bytes expected for shape"),
    "idx too long": (lambda f: idx(f, (2, 3), bytes(7)), "7 found"),
    "idx without axes": (lambda f: idx(f, ()), "damaged IDX header"),
    "idx of 255 axes": (lambda f: idx(f, (1,) * 255, bytes(1)), "255 axes"),
    "idx with fewer labels": (lambda f: idx(f, (2, 3), bytes(6), 1), "2 images, but labels"),
    "idx gzip bomb": (lambda f: gz_bomb(f, "t-images-idx3-ubyte.gz"), "expand to more than"),
    "csv gzip bomb": (lambda f: gz_bomb(f, "some.csv.gz"), "expand to more than"),
    "csv with NUL": (lambda f: csv(f, "1,2,3\n\0,2,3\n"), "line 2: not a text file"),
    "csv of UTF-16": (lambda f: (f / "u.csv").write_bytes("1,2\n".encode("utf-16")) and f / "u.csv", "UTF-16"),
    "csv with a long word": (lambda f: csv(f, "1,0.5\n2," + "x" * 10**6 + "\n"), "not a table of numbers"),
    "csv with a negative label": (lambda f: csv(f, "-1,0.5\n2,0.5\n"), "label 0 is -1"),
    "csv with a fractional label": (lambda f: csv(f, "1,0.5\n0.5,0.5\n"), "label 1 is 0.5"),
    "csv with infinity": (lambda f: csv(f, "1,0.5\n2,1e999\n"), "image 1 .* not finite"),
    "csv with huge labels": (lambda f: csv(f, "1,0.5\n1e300,0.5\n"), "label 1 is 1e"),
}


@pytest.mark.parametrize(("write", "message"), FILES.values(), ids=FILES)
def test_refused_at_once_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Path], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path)
    begin = time.process_time()
    with pytest.raises(InputError, match=message) as error:
        load_dataset(path)
    assert time.process_time() - begin < 20
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    assert path.name in str(error.value)
    assert not Path("was-here").exists()


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    path = bomb(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            load_dataset(path)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()


def test_a_million_columns_are_an_image_that_does_not_fit(tmp_path: Path) -> None:
    row = "0.5," * 999_999 + "0.5"
    data = load_dataset(csv(tmp_path, f"1,{row}\n0,{row}\n"))
    assert data.image_shape == (1_000_000,)
    with pytest.raises(InputError, match=r"\(1000000,\), the network takes \(1, 4\)"):
        data.fit_to((1, 4))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_honest_archives_are_read(tmp_path: Path, save: Callable[..., None], order: str) -> None:
    images = np.asarray(np.random.default_rng(0).random((5, 4, 3)).astype(np.float32), order=order)
    save(tmp_path / "some.npz", images=images, labels=np.arange(5), names=np.array(["a"]))
    np.testing.assert_array_equal(load_dataset(tmp_path / "some.npz").images, images)
