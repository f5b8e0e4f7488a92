"""A CSV file's first line is a header where it must be one, and a file that may mean two things is refused."""

from __future__ import annotations

import pytest

from mipverify.errors import InputError
from mipverify.specification import load_dataset

ROWS = "0,0.9,0.1,0.2\n1,0.1,0.8,0.2\n2,0.1,0.1,0.9\n"
WIDE = "".join(",".join(map(str, [label, *[(7 * label + i) % 256 for i in range(20)]])) + "\n" for label in range(3))


def load(folder, text, **given):
    (folder / "d.csv").write_text(text)
    return load_dataset(folder / "d.csv", **given)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "0,1,2,3\n",
        "1,2,3,4\n",
        "label,a,b,c\n",
        '"0","1","2","3"\n',
        "Label,a,b,c\r\n",
        "\n0,1,2,3\n",
        "y,f0,f1,f2\n",
    ],
)
def test_headers_are_no_samples(tmp_path, header):
    data = load(tmp_path, header + ROWS)
    assert data.labels.tolist() == [0, 1, 2]
    assert data.image(0).tolist() == pytest.approx([0.9, 0.1, 0.2])


def test_a_wide_count_of_columns_is_a_header(tmp_path):
    header = ",".join(map(str, range(21))) + "\n"
    data = load(tmp_path, header + WIDE, domain=(0, 255))
    assert data.labels.tolist() == [0, 1, 2]
    assert load(tmp_path, WIDE, domain=(0, 255)).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,1\n1,3\n0,2\n", "may be a header or a sample"),
        ("0,1,2\n1,3,5\n", "may be a header or a sample"),
        ("0,1,2,3\n", "may be a header or a sample"),
        ("5,0,0.1,0.2,9\n1,0,0,7,3\n2,0,1,0,0\n", "may be a header or a sample"),
        ("0.0,1.0,2.0,3.0\n1,0.5,0.5,0.5\n", "may be a header or a sample"),
        ("cat,0.5,0.1,0.2\n1,0.5,0.1,0.2\n", "may be a header or a sample"),
        ('"0","0.5","0.1"\n1,0.5,0.1\n', "may be a header or a sample"),
        (",0,1,2\n0,5,0.1,0.2\n", "row numbers: the label must come first"),
        ("a,b,c,label\n0.5,0.1,0.2,3\n", "first column is 'a': the label must come first"),
        ("1;2;3\n", "no line with a label and pixels, separated by commas"),
    ],
)
def test_what_may_mean_two_things_is_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as error:
        load(tmp_path, text, domain=None)
    assert "\n" not in str(error.value)


def test_fractions_in_the_first_sample_are_no_header(tmp_path):
    assert load(tmp_path, "1,0.5,0.5\n0,1,1\n").labels.tolist() == [1, 0]
    assert load(tmp_path, "3,0.5,0.25\n0,1,1\n1,1,0\n").labels.tolist() == [3, 0, 1]
