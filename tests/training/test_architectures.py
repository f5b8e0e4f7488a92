"""Architectures have the sizes that the papers state."""

from __future__ import annotations

import pytest
import torch
from mipverify.models.architectures import ARCHITECTURES, Thresholds, build
from mipverify.presolve import interval

from mipverify.errors import InputError
from mipverify.network import Network

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "shape", "relus"),
    [
        ("mlp_a", MNIST, 500),
        ("mlp_b", MNIST, 400),
        ("cnn_a", MNIST, 4804),
        ("cnn_b", MNIST, 48064),
        ("cnn_a", CIFAR, 6244),
        ("res", CIFAR, 107496),
        ("rs_cnn", MNIST, 4804),
        ("rs_cnn", CIFAR, 6244),
        ("rs_cnn_wide", MNIST, 9608),
        ("cnn_norm", MNIST, 14496),
        ("cnn_threshold", MNIST, 14496 + 2 * 784),
    ],
)
def test_number_of_relus(name: str, shape: tuple[int, ...], relus: int) -> None:
    counted: list[int] = []
    module = build(name, shape, 10, seed=0)
    for part in module.modules():
        if isinstance(part, torch.nn.ReLU):
            part.register_forward_hook(lambda *a: counted.append(a[2][0].numel()))
    with torch.no_grad():
        assert module(torch.zeros(2, *shape)).shape == (2, 10)
    assert sum(counted) == relus


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_can_be_verified(name: str) -> None:
    module = build(name, (1, 8, 8), 3, seed=0).eval()
    network = Network.from_torch(module, (1, 8, 8))
    x = torch.rand(2, 1, 8, 8)
    assert torch.allclose(network.forward(x[:, None]).reshape(2, 3), module(x), atol=1e-5)


def test_bounds_of_thresholds_are_exact_and_black_and_white_stay_constants() -> None:
    module = Thresholds(2).requires_grad_(False)
    x = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    x[0], x[1] = 0, 1
    network = Network.from_torch(module, (2, 4, 4))
    bounds = interval(network, x - 0.25, x + 0.25)
    lower, upper = (side[network.output].reshape(x.shape) for side in (bounds.lower, bounds.upper))
    torch.testing.assert_close(lower, module(x + 0.25))  # it falls from 1 to 0
    torch.testing.assert_close(upper, module(x - 0.25))
    torch.testing.assert_close((upper - lower)[:2], torch.zeros(2, 2, 4, 4))
    assert float((upper - lower)[2].max()) > 0.5


def test_seeds() -> None:
    def first(seed: int | None) -> torch.Tensor:
        return next(build("mlp_b", (4,), 2, seed).parameters())

    state = torch.get_rng_state()
    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cnn_c", MNIST, 10), "cnn_a"),
        (("cnn_a", (784,), 10), "channels"),
        (("cnn_a", (1, 2, 2), 10), "too small"),
        (("res", (1, 10, 10), 10), "multiples of 4"),
        (("mlp_a", (), 10), "shape"),
        (("mlp_a", MNIST, 1), "1 classes"),
    ],
)
def test_what_cannot_be_built(arguments: tuple[str, tuple[int, ...], int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build(*arguments)
