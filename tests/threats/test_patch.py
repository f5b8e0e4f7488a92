"""Patches and masks: one question about all positions agrees with one for each of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mipverify
from mipverify import InputError
from mipverify.engine.schedule import TOGETHER
from mipverify.engine.threats import parts
from mipverify.engine.threats.mask import Mask, mask
from mipverify.engine.threats.patch import Patch, patch
from mipverify.engine.threats.sample import Sample
from mipverify.engine.threats.threat import Limits
from mipverify.engine.verdict import Verdict
from mipverify.network import Network
from tests.soundness.nets import dense, random_layers
from tests.threats.bundled import margins, network, sample

SIDE = 4


def small(seed: int) -> tuple[Network, Sample]:
    """A dense network of a 4 x 4 image, and an image of the class that it gives."""
    rng = np.random.default_rng(seed)
    made = dense(random_layers(rng, (SIDE * SIDE, 12, 8, 3)))
    image = rng.random(SIDE * SIDE).astype(np.float32)
    label = int(np.argmax(made.forward(image[None])))
    return made, Sample(image, label, eps="0.25")


def test_position_that_stays_undecided_for_no_reason_given_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    made, one = small(3)
    answers = []

    def no_answer(*_: object, **__: object) -> Verdict:
        answers.append(Verdict("unknown", 0.0, "milp", margin_lower_bound=-1e-9, reason=""))
        return answers[-1]

    monkeypatch.setattr(parts, "verify_rest", no_answer)
    monkeypatch.setattr("mipverify.engine.together.TOGETHER", TOGETHER[:1])
    verdict = patch(2).verify(made, one, Limits(60))
    assert answers
    assert verdict.verdict == "unknown"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [1, 2])
def test_one_question_agrees_with_one_for_each_position(seed: int, size: int) -> None:
    made, one = small(seed)
    threat = patch(size)
    verdict = threat.verify(made, one, Limits(60))
    alone = {}
    for row in range(SIDE - size + 1):
        for column in range(SIDE - size + 1):
            free = np.zeros((SIDE, SIDE))
            free[row : row + size, column : column + size] = 1
            alone[row, column] = mipverify.verify(made, one.image, one.label, eps="0.25", mask=free.reshape(-1))
    words = {position: answer.verdict for position, answer in alone.items()}
    assert verdict.statistics["parts"] == len(words)
    if verdict.verdict == "holds":
        assert set(words.values()) == {"holds"}
    else:
        assert verdict.verdict == "violated"
        where = verdict.statistics["worst"]
        assert words[where["row"], where["column"]] == "violated"
        assert verdict.witness is not None
        changed = (verdict.witness.input != one.image).reshape(SIDE, SIDE)
        rows, columns = np.nonzero(changed)
        assert rows.min() >= where["row"]
        assert rows.max() < where["row"] + size
        assert columns.min() >= where["column"]
        assert columns.max() < where["column"] + size


def test_both_answers_occur_on_small_networks() -> None:
    words = {patch(2).verify(*small(seed), Limits(60)).verdict for seed in range(8)}
    assert words == {"holds", "violated"}


def test_a_patch_takes_any_legal_value_without_a_radius() -> None:
    masks, names = patch(2).positions(sample(0))
    box = patch(2).boxes(sample(0), masks[:1])
    free = masks[0]
    image = np.asarray(sample(0).image, np.float64).reshape(-1)
    assert (box.lower[free] == 0).all()
    assert (box.upper[free] == 1).all()
    assert (box.lower[~free] == image[~free]).all()
    assert (box.upper[~free] == image[~free]).all()
    assert len(names) == 27 * 27
    assert free.sum() == 4


def test_channels_change_together() -> None:
    one = Sample(np.zeros((1, 3, 5, 4), np.float32), 0, eps="0.1")
    masks, names = Patch("patch:2", 2).positions(one)
    assert len(names) == 4 * 3
    for free, where in zip(masks, names, strict=True):
        planes = free.reshape(3, 5, 4)
        assert (planes == planes[0]).all()
        assert planes[0, where["row"] : where["row"] + 2, where["column"] : where["column"] + 2].all()
        assert planes.sum() == 12


def test_the_smallest_radius_of_a_patch() -> None:
    one = sample(7)
    found = patch(2).distance(network(), one, Limits(60), gap=0.1)
    assert found.status == "optimal"
    assert found.upper is not None
    assert found.lower >= 0.9 * found.upper - 1e-9
    assert found.witness is not None
    moved = np.abs(found.witness.input - np.asarray(one.image).reshape(-1)).max()
    assert moved == pytest.approx(found.upper, rel=1e-6)
    assert margins(found.witness.input[None], one.label)[0] <= 0


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_mask_is_the_mask_of_the_call(norm: str) -> None:
    for seed in range(3):
        made, one = small(seed)
        free = np.arange(SIDE * SIDE) % 3 == 0
        threat = Mask("mask:file", "file", free)
        asked = Sample(one.image, one.label, eps="0.3", norm=norm)
        verdict = threat.verify(made, asked, Limits(60))
        other = mipverify.verify(made, one.image, one.label, eps="0.3", mask=free.astype(float), norm=norm)
        assert verdict.verdict == other.verdict
        if verdict.witness is not None:
            assert (verdict.witness.input == one.image)[~free].all()


def test_background_and_foreground() -> None:
    image = np.asarray(sample(0).image).reshape(-1)
    background, foreground = mask("background").allowed(sample(0)), mask("foreground").allowed(sample(0))
    assert np.array_equal(background, image == 0)
    assert np.array_equal(background, ~foreground)


def test_masks_from_files(tmp_path: Path) -> None:
    free = np.zeros((28, 28), np.uint8)
    free[3:5, 7:9] = 255
    np.save(tmp_path / "m.npy", free)
    np.savez(tmp_path / "m.npz", mask=free)
    pytest.importorskip("PIL.Image").fromarray(free).save(tmp_path / "m.png")
    for name in ("m.npy", "m.npz", "m.png"):
        found = mask(str(tmp_path / name)).allowed(sample(0)).reshape(28, 28)
        assert np.array_equal(found, free > 0)
    np.save(tmp_path / "small.npy", np.ones((3, 3)))
    with pytest.raises(InputError, match=r"mask has shape \(3, 3\)"):
        mask(str(tmp_path / "small.npy")).allowed(sample(0))
    np.save(tmp_path / "none.npy", np.zeros((28, 28)))
    (tmp_path / "bad.npy").write_bytes(b"no array")
    np.savez(tmp_path / "two.npz", a=free, b=free)
    for name, words in (
        ("none.npy", "no pixel"),
        ("bad.npy", "cannot be read"),
        ("two.npz", "2 arrays"),
        ("x", "ends"),
    ):
        if name == "x":
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(InputError, match=words):
            mask(str(tmp_path / name))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="larger than the image"):
        patch(29).verify(network(), sample(0), Limits())
    with pytest.raises(InputError, match="linf"):
        patch(2).verify(network(), sample(0, eps="1", norm="l2"), Limits())
    with pytest.raises(InputError, match="radius"):
        patch(2).verify(network(), sample(0, domain=None), Limits())
    with pytest.raises(InputError, match="needs a radius"):
        mask("background").verify(network(), sample(0), Limits())
