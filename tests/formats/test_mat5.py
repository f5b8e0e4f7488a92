"""MATLAB files are read as scipy writes them, and no damage ends in anything but an InputError."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from mipverify import InputError
from mipverify.network.formats import convert
from mipverify.network.formats.mat5 import read_mat5
from mipverify.network.formats.mat_file import read_arrays
from tests.formats.sources import dense_arrays, nnet_text, random_nnet, save_mat

DTYPES = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?"]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    dtype=st.sampled_from(DTYPES),
    compressed=st.booleans(),
    nested=st.booleans(),
    name=st.sampled_from(["a", "fc1_w", "fc1/weight", "a_rather_long_name_of_a_layer"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_arrays_of_every_type(
    shape: list[int],
    dtype: str,
    compressed: bool,
    nested: bool,
    name: str,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    array = np.random.default_rng(seed).integers(0, 100, size=shape).astype(dtype)
    written = {"outer": {"first": array, "second": np.ones(2)}} if nested else {name: array, "second": np.ones(2)}
    scipy.io.savemat(path, written, do_compression=compressed, long_field_names=True)
    found = read_arrays(path)
    assert sorted(found) == (["outer/first", "outer/second"] if nested else sorted([name, "second"]))
    read = found["outer/first" if nested else name]
    assert read.dtype == np.float64
    np.testing.assert_array_equal(read, array)


def test_small_numbers_stored_as_bytes(tmp_path: Path) -> None:
    """MATLAB stores doubles that are whole numbers in fewer bytes, and may write in the other byte order."""
    matrix = b"\x06\0\0\0\x08\0\0\0\x06\0\0\0\0\0\0\0" + b"\x05\0\0\0\x08\0\0\0\x01\0\0\0\x03\0\0\0"
    matrix += b"\x01\0\x01\0a\0\0\0" + b"\x02\0\x03\0\x07\x08\xff\0"
    little = b"MATLAB".ljust(124) + b"\x00\x01IM" + b"\x0e\0\0\0" + len(matrix).to_bytes(4, "little") + matrix
    np.testing.assert_array_equal(read_mat5(little)["a"], [[7, 8, 255]])
    swapped = b"\0\0\0\x06\0\0\0\x08\0\0\0\x06\0\0\0\0" + b"\0\0\0\x05\0\0\0\x08\0\0\0\x01\0\0\0\x03"
    swapped += b"\0\x01\0\x01a\0\0\0" + b"\0\x03\0\x02\x07\x08\xff\0"
    big = b"MATLAB".ljust(124) + b"\x01\x00MI" + b"\0\0\0\x0e" + len(swapped).to_bytes(4, "big") + swapped
    np.testing.assert_array_equal(read_mat5(big)["a"], [[7, 8, 255]])


def test_other_variables_are_passed_over_and_complex_ones_refused(tmp_path: Path) -> None:
    sparse = scipy.sparse.random(5, 4, 0.4, random_state=0)
    cell = np.empty((1, 2), dtype=object)
    cell[:] = [np.ones(2), "b"]
    scipy.io.savemat(tmp_path / "a.mat", {"text": "hello", "cell": cell, "sparse": sparse, "none": np.zeros((0, 3))})
    found = read_arrays(tmp_path / "a.mat")
    assert sorted(found) == ["none", "sparse"]
    np.testing.assert_array_equal(found["sparse"], sparse.toarray())
    scipy.io.savemat(tmp_path / "b.mat", {"w": np.ones(2) * 1j})
    with pytest.raises(InputError, match=r"b\.mat.*'w' is complex"):
        read_arrays(tmp_path / "b.mat")


def files(folder: Path) -> dict[str, bytes]:
    """Good files of both formats."""
    rng = np.random.default_rng(0)
    save_mat(folder / "good.mat", dense_arrays(rng, [4, 3, 2], ["fc1", "logits"]))
    scipy.io.savemat(folder / "packed.mat", dense_arrays(rng, [4, 3, 2], ["fc1", "logits"]), do_compression=True)
    text = nnet_text(*random_nnet(rng, [3, 4, 2])).encode()
    return {
        "bad.mat": (folder / "good.mat").read_bytes(),
        "bad_packed.mat": (folder / "packed.mat").read_bytes(),
        "bad.nnet": text,
    }


@settings(max_examples=60, deadline=None)
@given(data=st.data(), name=st.sampled_from(["bad.mat", "bad_packed.mat", "bad.nnet"]), cut=st.booleans())
def test_damage_is_one_line_or_none(
    data: st.DataObject, name: str, cut: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    content = bytearray(files(folder)[name])
    place = data.draw(st.integers(0, len(content) - 1))
    if cut:
        del content[place:]
    else:
        content[place] = data.draw(st.integers(0, 255))
    (folder / name).write_bytes(content)
    try:
        convert(folder / name, folder / "net.onnx")
    except InputError as error:
        assert name in str(error)
        assert "\n" not in str(error)
        assert not (folder / "net.onnx").exists()
