"""What a loss cannot take is refused in one line, before anything is computed; what training loops do is taken."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mipverify.models import certified_loss, pgd_attack, relu_stability_loss
from torch import nn

from mipverify.errors import InputError

X, Y = torch.full((6, 4), 0.5), torch.tensor([0, 1, 2, 0, 1, 2])


def module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x": X.numpy()}, "a torch tensor is needed, not ndarray"),
        ({"x": [0.5]}, "a torch tensor is needed, not list"),
        ({"x": X[:0], "y": Y[:0]}, "x holds no input"),
        ({"x": X * torch.nan}, "image pixel 0 is nan"),
        ({"y": [0, 1, 2, 0, 1, 2]}, "labels: a torch tensor is needed, not list"),
        ({"eps": "0.1"}, "eps: a number or a tensor is needed, not str"),
        ({"eps": None}, "eps: a number or a tensor is needed, not NoneType"),
        ({"eps": torch.full((6,), 0.1)}, r"eps of shape \[6\] does not broadcast to x \[6, 4\]"),
        ({"eps": torch.full((2, 6, 4), 0.1)}, r"eps of shape \[2, 6, 4\] does not broadcast"),
        ({"domain": "01"}, "domain: the smallest and the largest"),
        ({"domain": (0, 1, 2)}, "domain: the smallest and the largest"),
    ],
)
def test_arguments_of_a_wrong_kind(changed: dict[str, Any], said: str) -> None:
    given = {"x": X, "y": Y, "eps": 0.1, **changed}
    for loss in (certified_loss, pgd_attack):
        with pytest.raises(InputError, match=said):
            loss(module(), **given)
    given.pop("y")
    if "y" not in changed or "x" in changed:
        with pytest.raises(InputError, match=said):
            relu_stability_loss(module(), **given)


def test_a_module_without_gradients_cannot_be_attacked() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x.detach())

    with pytest.raises(InputError, match="no gradient with respect to its input"):
        pgd_attack(Cut(), X, Y, 0.1)


def test_each_sample_may_have_a_radius_of_its_own() -> None:
    radii = torch.linspace(0, 0.1, 6)[:, None]
    each = certified_loss(module(), X, Y, radii, reduction="none")
    alone = [certified_loss(module(), X[i : i + 1], Y[i : i + 1], float(radii[i])) for i in range(6)]
    torch.testing.assert_close(each, torch.stack(alone))


def test_gradients_by_transforms_of_functions() -> None:
    net = module()

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        class Loss(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = net

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return certified_loss(self.net, x, Y, 0.1)

        named = {f"net.{name}": value for name, value in parameters.items()}
        return torch.func.functional_call(Loss(), named, (X,))

    found = torch.func.grad(loss)({name: p.detach() for name, p in net.named_parameters()})
    certified_loss(net, X, Y, 0.1).backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("normalize", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_weights_computed_by_hooks_are_computed_for_each_use(normalize: Any) -> None:
    """A loop of two steps: the second has the weights, and the graph, of the second."""
    net = module()
    normalize(net[0])
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        certified_loss(net, X, Y, 0.0).backward()
        optimizer.step()
    found = certified_loss(net, X, Y, 0.0)
    torch.testing.assert_close(found, nn.functional.cross_entropy(net.eval()(X), Y))
