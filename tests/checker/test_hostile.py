"""Corrupted proofs end in one of the three answers, and never make a false claim verified."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from mipverify_check import main, onnx_file, operators
from mipverify_check.arithmetic import FLOATS
from mipverify_check.errors import BadInputError, RejectedError
from onnx import helper

from tests.checker.examples import EXAMPLES, VIOLATED, Example, by_boxes, by_cuts, by_passes, by_phases
from tests.checker.making import Writer, below, model
from tests.checker.mutations import mutated, packed, unpacked

EACH = 120  # corruptions of each proof; scripts/mutate_proofs.py makes many more


def answers(found: Example, contents: list[bytes]) -> list[str]:
    """What the checker says of each content: the claim, or "rejected"; anything else is raised."""
    file = onnx_file.read(str(found.network))
    network = operators.lowered(file, FLOATS)
    path = None if found.property is None else str(found.property)
    said = []
    for content in contents:
        try:
            said.append(main.check(content, network, file.sha256, path))
        except (RejectedError, BadInputError):
            said.append("rejected")
    return said


@pytest.mark.parametrize("name", EXAMPLES)
def test_corruptions_do_not_change_what_is_claimed(name: str, tmp_path: Path) -> None:
    found, rng = EXAMPLES[name](tmp_path), np.random.default_rng(7)
    content = found.writer.content()
    (claim,) = answers(found, [content])
    said = answers(found, [mutated(content, rng) for _ in range(EACH)])
    changed = set(said) - {claim, "rejected"}
    if found.property is not None:
        assert changed == set()
    for other in changed:  # another question about an image is another claim, and says so
        assert other != claim
    assert "rejected" in said


@pytest.mark.parametrize("build", [by_passes, by_phases, by_cuts, by_boxes])
def test_no_corruption_makes_a_false_claim_verified(build, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found, rng = build(tmp_path, VIOLATED), np.random.default_rng(11)
    content = found.writer.content()
    assert set(answers(found, [mutated(content, rng) for _ in range(EACH)])) == {"rejected"}


def member(data: bytes, name: str = "header.npy") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def npy(shape: str, kind: str = "|u1", body: bytes = b"") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        member(b"no array"),
        member(npy("(999999999999,)")),
        member(npy("(2, -3)", body=b"123456")),
        member(npy("(0, 99999999999999999999)")),
        member(npy("(0, 9223372036854775807, 9223372036854775807)")),
        member(npy("(1,)", "|O", b"x" * 8)),
        member(npy("(__import__('os'),)")),
        member(npy("(" + "(" * 3000 + ")" * 3000 + ")")),
        member(npy("(3,)", body=b"{}x")),
        member(npy("(2,)", body=b"[]")),
        member(npy("(2,)", body=b"{}")),
        member(npy("(200000,)", body=b"[" * 100000 + b"]" * 100000)),
        member(npy("(5,)", body=b"[NaN]")),
        member(npy("(4,)", body=b"\xff\xfe\xfd\xfc")),
        member(npy("(2,)", body=b"{}"), "other.npy"),
    ],
    ids=range(17),
)
def test_what_is_no_proof_file_is_rejected(content: bytes, tmp_path: Path) -> None:
    assert answers(by_passes(tmp_path), [content]) == ["rejected"]


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    found = by_passes(tmp_path)
    header, arrays = unpacked(found.writer.content())
    header["sites"].append(["bomb", 0])
    stream = io.BytesIO(packed(header, arrays))
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb.npy", "w") as target:
        for _ in range(600):
            target.write(bytes(2**20))
    assert len(stream.getvalue()) < 2**21
    assert answers(found, [stream.getvalue()]) == ["rejected"]


@pytest.mark.parametrize("value", ["1e999999999", "1/0", "0x10", "nan", "9" * 10**6, " ", None, 1, [], {}])
def test_numbers_that_are_none_are_rejected(value: object, tmp_path: Path) -> None:
    found = by_passes(tmp_path)
    found.writer.header["cases"][0]["conditions"][0][0]["offset"] = value
    assert answers(found, [found.writer.content()]) == ["rejected"]


def test_names_of_any_characters_are_rejected_in_print(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for change in ({"conditions": "\ud800"}, {"slopes": {"\u00b2": ["a0", "a0"]}}):
        found = by_passes(tmp_path)
        found.writer.header["facts"][-1] |= change
        assert main.main([str(found.save(tmp_path / "p")), str(found.network), str(found.property)]) == 1
        assert "rejected: fact 2" in capsys.readouterr().out


def test_sums_of_numbers_of_many_digits_come_to_an_end(tmp_path: Path) -> None:
    found = by_passes(tmp_path)
    many = [[0, f"1/{10**3000 + i}"] for i in range(3000)]  # of exact sums, the denominators grow without end
    found.writer.header["cases"][0]["conditions"][0][0]["outputs"] = many
    assert answers(found, [found.writer.content()]) == ["rejected"]
    image = [0.125, 0.25, 0.375]
    found = by_passes(tmp_path)
    writer = found.writer
    writer.header["cases"][0]["region"] = {
        "norm": "l2",
        "center": writer.packed([0, 0, 0]),
        "scale": writer.packed([1, 1, 1]),
        "radius": "9",
    }
    writer.header["question"] = {
        "kind": "robustness",
        "image": writer.packed(image),
        "label": 0,
        "targets": [1],
        "eps": "0",
        "norm": "l2",
        "domain": None,
        "normalization": {"table": writer.array([[0, 1], [0, 2], [0, 3]]), "which": writer.array([0, 1, 2])},
        "numbers": ["0", *(f"1.{10**4000 + 2 * i + 1}" for i in range(3))],
    }
    with pytest.raises(RejectedError, match="digits"):
        checked(found)


def checked(found: Example) -> str:
    file = onnx_file.read(str(found.network))
    path = (
        None if found.property is None or found.writer.header["question"]["kind"] != "vnnlib" else str(found.property)
    )
    return main.check(found.writer.content(), operators.lowered(file, FLOATS), file.sha256, path)


@pytest.mark.parametrize("domain", [[], ["0"], ["0", "1", "2"]])
def test_a_domain_has_two_ends(domain: list[str], tmp_path: Path) -> None:
    found = by_passes(tmp_path)
    found.writer.header["question"] = {
        "kind": "robustness",
        "image": found.writer.packed([0.0, 0.25, 0.5]),
        "label": 0,
        "targets": [1],
        "eps": "0",
        "norm": "linf",
        "domain": domain,
        "normalization": None,
    }
    with pytest.raises(RejectedError, match="robustness"):
        checked(found)


def test_coefficients_that_underflow_meet_no_enormous_inputs(tmp_path: Path) -> None:
    """y = 1e-200 * 1e-200 * x reaches -1e-171 on the box, where a row's coefficient is 0 in float64."""
    weights = {f"w{i}": np.full((1, 1), 1e-200) for i in range(2)}
    nodes = [helper.make_node("MatMul", pair, [made]) for pair, made in ((["x", "w0"], "z"), (["z", "w1"], "y"))]
    built = model(nodes, weights, [1, 1])
    built.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    onnx.save(built, tmp_path / "net.onnx")
    for reach, answer in ((1e229, "2\\^100"), (1e29, None)):
        writer = Writer(tmp_path / "net.onnx", {"kind": "sets"})
        writer.case([[-reach, reach]], [below(0, "-1e-180")])
        writer.fact("interval", case=0)
        writer.fact("exclude", of=0, conditions=writer.array([0], np.uint8))
        if answer is None:
            checked(Example(tmp_path / "net.onnx", None, writer))
        else:
            with pytest.raises(RejectedError, match=answer):
                checked(Example(tmp_path / "net.onnx", None, writer))


def test_a_counterexample_beyond_floats_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = by_passes(tmp_path)
    (tmp_path / "w").write_text("((X_0 1e4000) (X_1 0) (X_2 0))")
    assert main.main(["--witness", str(tmp_path / "w"), str(found.network), str(found.property)]) == 1
    assert "rejected" in capsys.readouterr().out


def test_an_unknown_key_is_rejected_wherever_it_stands(tmp_path: Path) -> None:
    for path in (
        ["facts", 0],
        ["facts", 1],
        ["facts", 2],
        ["cases", 0],
        ["question"],
        ["cases", 0, "conditions", 0, 0],
    ):
        found = by_passes(tmp_path)
        item = json.loads(json.dumps(found.writer.header))
        target = item
        for step in path:
            target = target[step]
        target["more"] = 1
        assert answers(found, [packed(item, found.writer.arrays)]) == ["rejected"]
