"""What a loss cannot take is refused in one line, before anything is computed; what training loops do is taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mipverify.models import (
    ReLUStabilityLoss,
    adversarial_loss,
    certified_loss,
    pgd_attack,
    relu_stability_loss,
    small_box_centers,
    unstable_units,
    warmup_regularizer,
)
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
        ({"x": X.long()}, "x: floats are needed, not int64"),
        ({"x": X > 0}, "x: floats are needed, not bool"),
        ({"x": X.to(torch.complex64)}, "x: floats are needed, not complex64"),
        ({"x": X.to_sparse()}, "a dense tensor is needed"),
        ({"x": X.to("meta")}, "on the device meta"),
        ({"x": torch.tensor(0.5)}, "x holds no input"),
        ({"y": Y + 1}, "labels must lie between 0 and 2"),
        ({"y": Y - 1}, "labels must lie between 0 and 2"),
        ({"eps": True}, "eps: a number or a tensor is needed, not bool"),
        ({"domain": "01"}, "domain: the smallest and the largest"),
        ({"domain": (0, 1, 2)}, "domain: the smallest and the largest"),
    ],
)
def test_arguments_of_a_wrong_kind(changed: dict[str, Any], said: str) -> None:
    given = {"x": X, "y": Y, "eps": 0.1, **changed}
    for loss in (certified_loss, pgd_attack):
        with pytest.raises(InputError, match=said):
            loss(module(), **given)
    with pytest.raises(InputError, match=said):
        small_box_centers(module(), **given, share=0.5)
    given.pop("y")
    if "y" not in changed or "x" in changed:
        with pytest.raises(InputError, match=said):
            relu_stability_loss(module(), **given)
        with pytest.raises(InputError, match=said):
            ReLUStabilityLoss(given.pop("eps"), domain=given.pop("domain", (0, 1)))(module(), given["x"])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x": X.double()}, r"cannot be run on x of shape \[6, 4\] and type float64: mat1 and mat2"),
        ({"x": torch.rand(6, 7)}, r"cannot be run on x of shape \[6, 7\]"),
        ({"x": X[:, None]}, r"scores of shape \[6, 1, 3\]: one row for each of 6"),
        ({"module": None}, "a torch.nn.Module is needed, not NoneType"),
        ({"module": lambda x: (x, x)}, "one tensor of scores, not a tuple"),
        ({"module": lambda x: {}["no"]}, "cannot be run"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"steps": -1}, "steps must be a whole number"),
        ({"step_size": "a"}, "step_size: a number or a tensor is needed, not str"),
        ({"step_size": torch.nan}, "step_size must be finite"),
        ({"generator": 5}, "a torch.Generator is needed, not int"),
    ],
)
def test_attacks_say_what_they_cannot_run(changed: dict[str, Any], said: str) -> None:
    given = {"module": module(), "x": X, "y": Y, "eps": 0.1, **changed}
    for attack in (pgd_attack, adversarial_loss):
        with pytest.raises(InputError, match=said):
            attack(**given)


def test_counts_take_what_losses_take() -> None:
    each = unstable_units(module(), X, torch.linspace(0, 0.3, 6)[:, None]).counts
    alone = [unstable_units(module(), X[:1].numpy(), eps).counts[0] for eps in torch.linspace(0, 0.3, 6).tolist()]
    np.testing.assert_array_equal(each, alone)
    for changed in ({"x": None}, {"x": [0.5]}, {"x": X[:0]}, {"eps": "0.1"}, {"eps": [0.1]}, {"input_shape": "a"}):
        with pytest.raises(InputError):
            unstable_units(**{"model": module(), "x": X, "eps": 0.1, **changed})  # type: ignore[arg-type]


def test_shares_are_numbers() -> None:
    with pytest.raises(InputError, match="share of a small box must be above 0 and at most 1, not 'a'"):
        small_box_centers(module(), X, Y, 0.1, "a")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tolerance must be above 0 and at most 1, not nan"):
        warmup_regularizer(module(), X, 0.1, tolerance=torch.nan)


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
