"""Instances are found as the competition lays them out; what is wrong is named by file and line."""

from __future__ import annotations

import pytest

from mipverify.benchmark.instances import find_instances, select
from mipverify.errors import InputError
from mipverify.specification.naming import network_files


def test_a_file_a_benchmark_and_a_folder_of_them(make_benchmark):
    first, second = make_benchmark([0.5, 2]), make_benchmark([3], "other", version="1.0")
    for place in (first, first / "instances.csv"):
        found = find_instances(place)
        assert [(one.index, one.benchmark, one.timeout) for one in found] == [(0, "tiny", 20.0), (1, "tiny", 20.0)]
        assert found[0].property_path.name == "above_0.5.vnnlib.gz", "compressed since"
    for place in (first.parent, first.parent.parent):
        assert [(one.index, one.benchmark) for one in find_instances(place)] == [(0, "other"), (1, "tiny"), (2, "tiny")]
    assert [one.benchmark for one in find_instances(second)] == ["other"]


def test_of_several_versions_the_first_is_taken_unless_another_is_named(make_benchmark):
    make_benchmark([0.5], version="1.0")
    folder = make_benchmark([0.5, 2, 3], version="2.0")
    assert len(find_instances(folder)) == 1
    assert [one.benchmark for one in find_instances(folder / "2.0")] == ["tiny"] * 3


def test_a_header_names_other_columns(make_benchmark):
    folder = make_benchmark([0.5, 2])
    (folder / "instances.csv").write_text(
        "benchmark,onnx,vnnlib,timeout_s,verdict\n"
        "mine,onnx/net.onnx,vnnlib/above_0.5.vnnlib,7.5,sat\nmine,onnx/net.onnx,vnnlib/above_2.vnnlib,8,unknown\n"
    )
    first, second = find_instances(folder)
    assert (first.benchmark, first.timeout, first.truth, second.truth) == ("mine", 7.5, "violated", "")


def test_networks_by_name():
    assert network_files("a b.onnx") == [("", "a b.onnx")]
    assert network_files("[('f', 'a.onnx'), ('g', 'b.onnx')]") == [("f", "a.onnx"), ("g", "b.onnx")]
    for wrong in ("[('f', 'a'), ('f', 'b')]", "[]", "[1]", "[('f', 'a'", "[__import__('os')]"):
        with pytest.raises(InputError, match="networks must"):
            network_files(wrong)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("onnx/net.onnx,vnnlib/above_2.vnnlib", "three columns"),
        ("onnx/net.onnx,vnnlib/above_2.vnnlib,", "three columns"),
        ("onnx/net.onnx,vnnlib/above_2.vnnlib,soon", "'soon'"),
        ("onnx/net.onnx,vnnlib/above_2.vnnlib,-1", "'-1'"),
        ("onnx/net.onnx,vnnlib/above_2.vnnlib,nan", "'nan'"),
        ("onnx/other.onnx,vnnlib/above_2.vnnlib,10", "onnx/other.onnx"),
        ("onnx/net.onnx,vnnlib/none.vnnlib,10", "vnnlib/none.vnnlib"),
    ],
)
def test_wrong_rows_are_named(make_benchmark, line, named):
    folder = make_benchmark([0.5, 2])
    with (folder / "instances.csv").open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(InputError, match=r"instances\.csv, line 4: .*" + named):
        find_instances(folder)


def test_nothing_there(tmp_path, make_benchmark):
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError):
            find_instances(place)
    folder = make_benchmark([0.5])
    (folder / "instances.csv").write_text("\n")
    with pytest.raises(InputError, match="no instance"):
        find_instances(folder)


def test_some_of_them(make_benchmark):
    found = find_instances(make_benchmark([1, 2, 3, 4, 5, 6, 7]))
    assert [one.index for one in select(found, None, 3)] == [0, 3, 6]
    assert [one.index for one in select(found, "tiny .*above_[2-6]", 2)] == [1, 3, 5]
    for match, every in (("nothing", 1), ("(", 1), (None, 0)):
        with pytest.raises(InputError, match=r"--(match|every)"):
            select(found, match, every)
