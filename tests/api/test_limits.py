"""Limits that no run could keep are refused in one line by every public call."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from torch import nn

import mipverify
from mipverify.engine.schedule import CASCADE
from mipverify.errors import InputError

X = np.full(4, 0.5, np.float32)
NET = nn.Sequential(nn.Linear(4, 3))
CALLS: dict[str, Callable[..., Any]] = {
    "verify": lambda **given: mipverify.verify(NET, X, eps="0.1", **given),
    "minimum_distortion": lambda **given: mipverify.minimum_distortion(NET, X, **given),
    "worst_margin": lambda **given: mipverify.worst_margin(NET, X, None, "0.1", **given),
    "compare": lambda **given: mipverify.compare(NET, NET, X, eps="0.1", **given),
    "adversarial_accuracy": lambda **given: mipverify.adversarial_accuracy(NET, X[None], [0], "0.1", **given),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", -1), ("timeout", float("nan")), ("timeout", "5"), ("timeout", None),
        ("seed", -1), ("seed", "a"), ("seed", 1.5), ("seed", None),
        ("workers", -1), ("workers", "x"), ("workers", 1.5), ("progress", "x"),
    ],
)  # fmt: skip
def test_limits(call: str, name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{name} must be a"):
        CALLS[call](**{name: value})


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("timeout", [np.float32(20), np.int64(20), Fraction(20), 10**400], ids=range(4))
def test_timeouts_of_any_type_of_numbers(call: str, timeout: Any) -> None:
    workers = np.int64(call != "adversarial_accuracy")  # there 0 is this process
    CALLS[call](timeout=timeout, seed=np.int64(1), workers=workers)


@pytest.mark.parametrize("call", [call for call in CALLS if call != "adversarial_accuracy"])
def test_there_is_no_number_of_workers_but_what_is_asked_for(call: str) -> None:
    with pytest.raises(InputError, match="workers must be a whole number, 1 or more, not None"):
        CALLS[call](workers=None)


@pytest.mark.parametrize("stages", [("x",), "x", 3, (None,), (type(CASCADE[0]),), ((CASCADE[0],),)])
def test_what_is_no_stage(stages: Any) -> None:
    with pytest.raises(InputError, match="stages must be stages"):
        CALLS["verify"](stages=stages)


def test_stages_may_come_one_by_one() -> None:
    assert CALLS["verify"](stages=(stage for stage in CASCADE)).verdict == CALLS["verify"]().verdict


@pytest.mark.parametrize("call", ["minimum_distortion", "worst_margin", "compare"])
def test_gaps_are_numbers(call: str) -> None:
    with pytest.raises(InputError, match=r"gap must be a number, not '0.1'"):
        CALLS[call](gap="0.1")


@pytest.mark.parametrize("given", [{"max_distance": "1"}, {"known": 0.1}, {"threat": 3}])
def test_arguments_of_distances(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(given))} must be"):
        CALLS["minimum_distortion"](**given)


@pytest.mark.parametrize("mask", [2, 0.5, -1, [1, 1, 1, float("nan")]])
def test_masks_hold_zeros_and_ones(mask: Any) -> None:
    with pytest.raises(InputError, match="mask must hold zeros and ones"):
        CALLS["verify"](mask=mask)


def test_labels_and_images_without_a_first_axis() -> None:
    for images, labels in ((X[None], 1), (np.float32(1), None), (X[None][:0], [])):
        with pytest.raises(InputError, match=r"labels: 1 integers are needed|images of shape|numbers of classes"):
            mipverify.adversarial_accuracy(NET, images, labels, "0.1")
    with pytest.raises(InputError, match="one label for 2 inputs"):
        mipverify.verify(NET, np.stack([X, X]), 0, eps=0.1)
    with pytest.raises(InputError, match="holds no input"):
        mipverify.verify(NET, X[:0].reshape(0, 4), eps=0.1)


def test_complex_numbers_are_no_inputs() -> None:
    torch = pytest.importorskip("torch")
    for x in (X + 1j, torch.from_numpy(X + 1j), torch.from_numpy(X + 1j).conj()):
        with pytest.raises(InputError, match="real numbers are needed"):
            mipverify.verify(NET, x, eps=0.1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mipverify.load_vnnlib(None),
        lambda: mipverify.load_dataset(3),
        lambda: mipverify.load_query(None, "net.onnx"),
        lambda: mipverify.Network.from_torch(NET, 4),
        lambda: mipverify.robustness([0.5, 0.5], 0, 0.1, num_classes="3"),
    ],
)
def test_other_types_than_are_asked_for(call: Callable[[], Any]) -> None:
    with pytest.raises(InputError, match=r"is needed, not|must be"):
        call()


@pytest.mark.parametrize("given", [{"timeout": -1}, {"timeout": "x"}, {"progress": "x"}])
def test_limits_of_sessions(given: dict[str, Any]) -> None:
    with mipverify.Session(mipverify.Network.from_torch(NET, (4,))) as session:
        with pytest.raises(InputError, match="must be a"):
            session.verify((X, 0, 0.1), **given)
        with pytest.raises(InputError, match="must be a"):
            session.verify_all([(X, 0, 0.1)], **given)


@pytest.mark.parametrize("call", CALLS)
def test_solvers_are_named_before_any_work(call: str) -> None:
    with pytest.raises(InputError, match="solver abacus: not one of"):
        CALLS[call](solver="abacus")


def test_arrays_are_quoted_in_one_line() -> None:
    with pytest.raises(InputError, match="must be a finite number") as refused:
        mipverify.adversarial_accuracy(NET, X[None], [0], 0.1, domain=(np.zeros((3, 3)), 1))
    assert "\n" not in str(refused.value)


def test_memory_and_shapes() -> None:
    for value in ("4G", -1, 0.5):
        with pytest.raises(InputError, match="memory must be a whole number of bytes"):
            CALLS["verify"](memory=value)
    for shape in (4, "4", (2.5,), (0, 4)):
        with pytest.raises(InputError, match="input_shape must be the sizes"):
            CALLS["verify"](input_shape=shape)


def test_seeds_of_sessions() -> None:
    with pytest.raises(InputError, match="seed must be"):
        mipverify.Session(mipverify.Network.from_torch(NET, (4,)), seed=-1)


@pytest.mark.parametrize("targets", [1, "1", 1.5])
def test_targets_are_a_list(targets: object) -> None:
    with pytest.raises(InputError, match="targets must be a list of classes"):
        mipverify.robustness([0.5, 0.5], 0, 0.1, num_classes=3, targets=targets)  # type: ignore[arg-type]


def test_a_tensor_without_values_is_no_input() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match="device meta"):
        mipverify.verify(torch.nn.Linear(2, 2), torch.zeros(2, device="meta"), eps=0.1)
