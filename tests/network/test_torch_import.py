"""A network imported from a torch module equals the module and shares its parameters."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from mipverify.errors import InputError  # noqa: E402
from mipverify.network import Affine, Network, from_torch  # noqa: E402
from mipverify.network.replay import replay_of  # noqa: E402
from tests.network.architectures import architectures  # noqa: E402

ARCHITECTURES = architectures()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_equals_the_module(name: str) -> None:
    module, shape = ARCHITECTURES[name]
    network = Network.from_torch(module, shape)
    x = torch.randn(5, *shape)
    with torch.no_grad():
        expected = module(x)
        ours = network.forward(x[:, None])
        ours64 = network.forward(x[:, None].numpy().astype(np.float64))
    assert network.input_shape == (1, *shape)
    assert network.output_shape == (1, *expected.shape[1:])
    np.testing.assert_allclose(ours[:, 0], expected, atol=1e-4)
    np.testing.assert_allclose(ours64[:, 0], expected, atol=1e-4)
    replayed = replay_of(network).run(x.reshape(5, -1).numpy())
    np.testing.assert_allclose(replayed, expected.reshape(5, -1), atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_reach_every_parameter(name: str) -> None:
    module, shape = ARCHITECTURES[name]
    network = from_torch(module, shape)
    module.zero_grad()
    x = torch.randn(4, 1, *shape)
    network.forward(x).square().sum().backward()
    ours = {n: p.grad.clone() for n, p in module.named_parameters()}
    module.zero_grad()
    module(x[:, 0]).square().sum().backward()
    for parameter, value in module.named_parameters():
        scale = max(1.0, float(value.grad.abs().max()))
        np.testing.assert_allclose(ours[parameter], value.grad, atol=1e-3 * scale, err_msg=parameter)


def test_parameters_are_the_modules_own() -> None:
    module, shape = ARCHITECTURES["mlp"]
    network = from_torch(module, shape)
    weights = [t.operator.weight for node in network.nodes if isinstance(node, Affine) for t in node.terms]
    assert weights[0] is module[1].weight
    assert weights[1] is module[3].weight
    x = torch.randn(2, 1, *shape)
    before = network.forward(x)
    with torch.no_grad():
        module[3].bias += 1.0
    after = network.forward(x)
    np.testing.assert_allclose(after.detach(), before.detach() + 1.0, atol=1e-6)


def test_backward_twice() -> None:
    """Training asks for gradients in every step without importing again."""
    module, shape = ARCHITECTURES["cnn"]
    network = from_torch(module, shape)
    for _ in range(2):
        network.forward(torch.randn(2, 1, *shape)).sum().backward()


def test_training_mode_is_left_alone() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    module.train()
    from_torch(module, (2,))
    assert module.training
    assert module[1].training


def test_softmax_at_the_end_is_dropped() -> None:
    network = from_torch(nn.Sequential(nn.Linear(2, 3), nn.Softmax(1)), (2,))
    assert network.order_only
    assert "softmax" in network.notes[0].lower()


class _Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class _Product(nn.Module):
    def forward(self, x):
        return x * x


REFUSED = {
    "sigmoid inside": (nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 2)), (2,), "Sigmoid"),
    "branching": (_Branching(), (2,), "cannot be traced"),
    "product": (_Product(), (2,), "mul"),
    "wrong shape": (nn.Linear(3, 2), (4,), "Linear|linear"),
    "softmax over positions": (nn.Sequential(nn.Conv2d(1, 2, 1), nn.Softmax(1)), (1, 2, 2), "Softmax"),
    "half precision": (nn.Linear(2, 2).half(), (2,), "float16"),
    "no size": (nn.Linear(2, 2), (0,), "input_shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_layer(name: str) -> None:
    module, shape, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        from_torch(module, shape)
    assert "\n" not in str(caught.value)


def test_nan_weights_are_refused() -> None:
    module = nn.Linear(2, 2)
    with torch.no_grad():
        module.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="weight"):
        from_torch(module, (2,))
