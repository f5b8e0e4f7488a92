"""The stability loss: its scale, its estimate by a sample, and networks that follow their module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mipverify.models import (
    MaskedReLU,
    Traced,
    input_box,
    prune_relus,
    prune_small_weights,
    relu_stability_loss,
    traced,
)
from mipverify.models.traced import detached
from mipverify.presolve import interval
from torch import nn

from mipverify.errors import InputError
from mipverify.network import Network
from tests.models.nets import EPS, NAMES, case


@pytest.mark.parametrize("name", NAMES)
def test_is_the_sum_over_hidden_units_and_the_mean_over_the_batch(name: str) -> None:
    """Against -tanh(1 + l u) from verification's own bounds, in numpy."""
    _, traced, x = case(name)
    network = detached(traced.network)
    boxes = (side.numpy().reshape(-1, *network.input_shape) for side in input_box(x, EPS))
    bounds = interval(network, *boxes)
    sums = np.zeros(len(x))
    for relu in network.relus:
        source = network.relu_source(relu)
        sums += -np.tanh(1 + bounds.lower[source] * bounds.upper[source]).reshape(len(x), -1).sum(1)
    each = relu_stability_loss(traced, x, EPS, reduction="none")
    np.testing.assert_allclose(each.detach(), sums, rtol=1e-9)
    np.testing.assert_allclose(relu_stability_loss(traced, x, EPS).item(), sums.mean(), rtol=1e-9)


@pytest.mark.parametrize("bounds", ["interval", "improved_interval", "crown"])
def test_every_position_of_a_convolution_is_a_unit(bounds: str) -> None:
    """A convolution counts as the dense layer that computes the same: summed over positions, not averaged."""
    torch.manual_seed(0)
    convs = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 2),
    ).double()
    network = Network.from_torch(convs, (1, 5, 5))
    layers: list[nn.Module] = [nn.Flatten()]
    for node in (network.nodes[i] for i in network.preactivations):
        matrix = torch.from_numpy(node.terms[0].operator.to_sparse().toarray())
        layers += [nn.Linear(matrix.shape[1], matrix.shape[0]).double(), nn.ReLU()]
        with torch.no_grad():
            layers[-2].weight.copy_(matrix)
            layers[-2].bias.copy_(node.bias.reshape(-1))
    dense = nn.Sequential(*layers, convs[-1])
    x = torch.rand(4, 1, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(dense(x), convs(x))
    a, b = (relu_stability_loss(m, x, 0.1, bounds=bounds, rows=None) for m in (convs, dense))
    torch.testing.assert_close(a, b)
    assert -43 < a.item() < 43  # 27 + 16 units, each between -1 and 1
    assert abs(a.item()) > 3


def test_one_unit() -> None:
    """By hand: z = 2 x - 1 over [0.4, 0.6], so l = -0.2, u = 0.2."""
    module = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        module[0].weight.fill_(2.0)
        module[0].bias.fill_(-1.0)
    x = torch.tensor([[0.5]])
    assert relu_stability_loss(module, x, 0.1).item() == pytest.approx(-np.tanh(1 - 0.04), abs=1e-6)
    # Clipped to the domain: x in [0.45, 0.55], l u = -0.01.
    assert relu_stability_loss(module, x, 0.1, domain=(0.45, 0.55)).item() == pytest.approx(-np.tanh(0.99), abs=1e-6)


@pytest.mark.parametrize("bounds", ["improved_interval", "crown"])
def test_a_sample_of_rows_estimates_the_whole(bounds: str) -> None:
    """Exactly without bias where only one layer is sampled."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(8, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 2)).double()
    traced, x = Traced(module, (8,)), torch.rand(4, 8, dtype=torch.float64)
    with torch.no_grad():
        whole = relu_stability_loss(traced, x, 0.2, bounds=bounds, rows=None).item()
        samples = [relu_stability_loss(traced, x, 0.2, bounds=bounds, rows=6).item() for _ in range(400)]
    error = np.std(samples) / np.sqrt(len(samples))
    assert 0 < error < 0.5
    assert abs(np.mean(samples) - whole) < 4 * error
    again = [
        relu_stability_loss(traced, x, 0.2, bounds=bounds, rows=6, generator=torch.Generator().manual_seed(5)).item()
        for _ in range(2)
    ]
    assert again[0] == again[1]


def test_training_makes_units_stable() -> None:
    module, traced, x = case("windows")
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    first = relu_stability_loss(traced, x, EPS).item()
    for _ in range(30):
        optimizer.zero_grad()
        relu_stability_loss(traced, x, EPS, bounds="improved_interval").backward()
        optimizer.step()
    assert relu_stability_loss(traced, x, EPS).item() < first - 20


def test_a_traced_module_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module, found, x = case("windows")
    monkeypatch.setattr(Network, "from_torch", None)  # any further call fails
    before = relu_stability_loss(found, x, EPS).item()
    with torch.no_grad():
        for p in module.parameters():
            p *= 1.5
    after = relu_stability_loss(found, x, EPS).item()
    monkeypatch.undo()
    assert after != before
    assert after == pytest.approx(relu_stability_loss(module, x, EPS).item(), rel=1e-12)


def pruned() -> nn.Module:
    module = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))
    prune_small_weights(module, 0.1)
    return module


def parametrized() -> nn.Module:
    linear = nn.utils.parametrizations.weight_norm(nn.Linear(6, 10))
    return nn.Sequential(linear, nn.ReLU(), nn.Linear(10, 3))


@pytest.mark.parametrize(
    "make",
    [
        pruned,
        parametrized,
        lambda: nn.Sequential(nn.Linear(6, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 3)),
        lambda: nn.Sequential(nn.Linear(6, 10), nn.PReLU(10), nn.Linear(10, 3)),
    ],
    ids=["pruned", "parametrized", "batch norm", "parametric relu"],
)
def test_computed_weights_are_followed(make) -> None:
    """Weights that are computed from parameters: gradients in every step, and the present values."""
    torch.manual_seed(0)
    module = make()
    found, x = Traced(module, (6,)), torch.rand(5, 6)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        module(x).sum().backward()  # frees the history of what the forward pass computed
        relu_stability_loss(found, x, 0.1).backward()
        optimizer.step()
    module.eval()
    fresh = traced.Traced(module, (6,))
    assert relu_stability_loss(found, x, 0.1).item() == relu_stability_loss(fresh, x, 0.1).item()
    torch.testing.assert_close(found.network.forward(x[:, None])[:, 0], module(x))


def prune_later(module: nn.Sequential) -> None:
    prune_small_weights(module, 0.2)


def prune_relus_later(module: nn.Sequential) -> None:
    prune_relus(module, torch.rand(50, 6), 0.3)


def move_away(module: nn.Sequential) -> None:
    module.double()
    module.float()


def other_data(module: nn.Sequential) -> None:
    for p in module.parameters():
        p.data = p.data + 0.1


def other_masks(module: nn.Sequential) -> None:
    kept = torch.arange(10) < 5
    module[1] = MaskedReLU(kept, ~kept)


@pytest.mark.parametrize("change", [prune_later, prune_relus_later, move_away, other_data, other_masks])
def test_changes_after_tracing_are_followed(change) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))
    found, x = Traced(module, (6,)), torch.rand(5, 6)
    change(module)
    with torch.no_grad():
        for p in module.parameters():
            p *= 1.1
    assert relu_stability_loss(found, x, 0.1).item() == relu_stability_loss(module, x, 0.1).item()
    torch.testing.assert_close(found.network.forward(x[:, None])[:, 0], module(x))


def test_loaded_masks_are_followed() -> None:
    kept = torch.arange(10) % 2 == 0
    first, second = (
        nn.Sequential(nn.Linear(6, 10), MaskedReLU(mask, ~mask), nn.Linear(10, 3)) for mask in (kept, ~kept)
    )
    found, x = Traced(first, (6,)), torch.rand(5, 6)
    first.load_state_dict(second.state_dict())
    torch.testing.assert_close(found.network.forward(x[:, None])[:, 0], second(x))


def test_modes_of_layers_are_left_alone() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Dropout(), nn.Linear(3, 2))
    module.train()
    module[1].eval()  # frozen
    relu_stability_loss(module, torch.rand(2, 3), 0.1)
    assert [part.training for part in module] == [True, False, True, True, True]


def test_a_network_without_module_serves_too() -> None:
    _, found, x = case("dense")
    frozen = detached(found.network)
    assert relu_stability_loss(frozen, x, EPS).item() == pytest.approx(relu_stability_loss(found, x, EPS).item())


def test_bad_arguments_are_refused() -> None:
    _, found, x = case("dense")
    with pytest.raises(InputError, match="reduction"):
        relu_stability_loss(found, x, EPS, reduction="sum")
    with pytest.raises(InputError, match="Sigmoid"):
        relu_stability_loss(nn.Sequential(nn.Linear(6, 3), nn.Sigmoid(), nn.Linear(3, 2)), x.float(), EPS)
    with pytest.raises(InputError, match="Traced"):
        relu_stability_loss("net", x, EPS)
