"""Modules in memory: verified with the parameters they have now, replayed as they are, left as they were."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import mipverify  # noqa: E402
from mipverify.errors import InputError  # noqa: E402
from mipverify.network import Network  # noqa: E402
from mipverify.network.graph import Affine  # noqa: E402
from mipverify.network.replay import replay_of  # noqa: E402
from mipverify.network.validation import unit_box, validated  # noqa: E402

MIDDLE = np.full(4, 0.5, np.float32)


def _small(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), **options)


def _label(module: nn.Module) -> int:
    parameter = next(module.parameters())
    return int(module(torch.from_numpy(MIDDLE).to(parameter.dtype)[None]).argmax())


@pytest.mark.parametrize("eps", ["0.0001", "2"])
@pytest.mark.parametrize("double", [False, True])
def test_every_question_is_answered_for_a_module_whose_parameters_want_gradients(double: bool, eps: str) -> None:
    module = _small().double() if double else _small()
    network, label = Network.from_torch(module, (4,)), _label(module)
    assert all(parameter.requires_grad for parameter in module.parameters())
    verdict = mipverify.verify(
        network, mipverify.robustness(MIDDLE, label, eps, num_classes=3, domain=None), timeout=20
    )
    assert verdict.verdict == ("holds" if eps == "0.0001" else "violated")
    assert mipverify.worst_margin(network, MIDDLE, label, "0.0001", timeout=20).lower > 0
    found = mipverify.minimum_distortion(network, MIDDLE, label, domain=(-2, 2), timeout=20)
    assert found.upper is not None
    assert found.lower > 0
    accuracy = mipverify.adversarial_accuracy(network, MIDDLE[None], np.array([label]), "0.0001", workers=0)
    assert accuracy.summary["holds"] == 1
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_a_double_module_is_replayed_in_double_precision() -> None:
    module = nn.Linear(2, 2).double()
    with torch.no_grad():
        module.weight.copy_(torch.eye(2, dtype=torch.float64) * (1 + 2**-40))
        module.bias.zero_()
    network = Network.from_torch(module, (2,))
    assert network.double
    output = validated(network, unit_box(network)).run(np.ones((1, 2), np.float32))
    assert output.dtype == np.float64
    assert (output == 1 + 2**-40).all()


def test_parts_stay_in_the_mode_that_they_were_in() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).train()
    module[1].eval()  # frozen
    network = Network.from_torch(module, (4,))
    mipverify.verify(network, mipverify.robustness(MIDDLE, 0, "0.001", num_classes=2), timeout=5)
    assert [part.training for part in module.modules()] == [True, True, False, True, True]


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lambda m: torch.compile(nn.DataParallel(m))])
def test_wrapped_modules_are_read_inside(wrap: Any) -> None:
    module = _small()
    network = Network.from_torch(wrap(module), (4,))
    x = torch.rand(1, 4)
    np.testing.assert_allclose(network.forward(x).detach()[0], module(x).detach(), atol=1e-6)
    assert network.module is module


def test_a_wrong_reading_of_a_module_is_refused() -> None:
    class Halves(nn.Module):
        """Something that tracing does not see: the layer's own forward is replaced."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.layer.forward = lambda x: 0.999 * nn.functional.linear(x, self.layer.weight, self.layer.bias)

        def forward(self, x: Any) -> Any:
            return self.layer(x)

    network = Network.from_torch(Halves(), (4,))
    with pytest.raises(InputError, match="what was read is not what runs"):
        mipverify.verify(network, mipverify.robustness(MIDDLE, 0, "0.001", num_classes=3))


ORDINARY = [
    nn.LeakyReLU(),
    nn.Hardtanh(-0.1, 0.1),
    nn.Threshold(0.1, 0.1),
    nn.Softshrink(0.1),
    nn.BatchNorm1d(6, affine=False),
    nn.ConstantPad1d((1, -1), 0.1),
]


@pytest.mark.parametrize("layer", ORDINARY, ids=lambda layer: type(layer).__name__)
def test_modules_with_numbers_that_are_no_floats_of_32_bits_are_verified(layer: nn.Module) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), layer, nn.Linear(6, 3)).eval()
    question = mipverify.robustness(MIDDLE, _label(module), "0.001", num_classes=3)
    assert mipverify.verify(Network.from_torch(module, (4,)), question, timeout=20).verdict == "holds"


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.relu(x * 0.1 + 0.1),
        lambda x: torch.sub(x.clamp(-0.1, 0.7), 1, alpha=0.3),
        lambda x: nn.functional.leaky_relu(x, 0.1).float(),
        lambda x: torch.softmax(0.1 - x, -1),
    ],
)
def test_code_with_numbers_that_are_no_floats_of_32_bits_is_read(function: Any) -> None:
    class Coded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return function(self.layer(x))

    torch.manual_seed(0)
    network = Network.from_torch(Coded(), (4,))
    validated(network, unit_box(network))


@pytest.mark.parametrize("number", [0.1, 0.125])
@pytest.mark.parametrize(
    "widened",
    [lambda x: x.double(), lambda x: x + torch.zeros(3, dtype=torch.float64), lambda x: x.to(torch.zeros(1).double())],
)
def test_a_number_in_code_that_mixes_types_must_make_no_difference(widened: Any, number: float) -> None:
    """In float64 it is 0.1, and was read as the float32 next to it."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return widened(self.layer(x)) * number

    network = Network.from_torch(Mixed(), (4,))
    if number == 0.125:
        validated(network, unit_box(network))
        return
    with pytest.raises(InputError, match="what was read is not what runs"):
        validated(network, unit_box(network))


@pytest.mark.parametrize("slope", [0.01, 0.25])
def test_a_network_that_differs_by_less_than_rounding_of_float32_is_refused(slope: float) -> None:
    """Whatever numbers the module's code holds: here a bias of the last layer has moved since the import."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(slope), nn.Linear(8, 3))
    network = Network.from_torch(module, (4,))
    last = network.nodes[network.output]
    assert isinstance(last, Affine)
    moved = replace(last, bias=last.bias.detach().double() + 1e-9)
    validated(network, unit_box(network))
    network = replace(network, nodes=(*network.nodes[:-1], moved))
    with pytest.raises(InputError, match="what was read is not what runs"):
        validated(network, unit_box(network))


def test_a_module_is_no_file() -> None:
    module: Any = _small()
    with pytest.raises(InputError, match="path of an ONNX file") as caught:
        mipverify.load(module)
    assert "\n" not in str(caught.value)


def test_a_network_of_a_module_travels_without_the_code_of_its_class() -> None:
    """Processes that verify get what was traced; tensors do not travel as memory that is shared."""
    network = Network.from_torch(_small(), (4,))
    again = pickle.loads(pickle.dumps(network))
    assert type(again.module).__name__ == "GraphModule"
    np.testing.assert_array_equal(replay_of(again).run(MIDDLE[None]), replay_of(network).run(MIDDLE[None]))
    found = mipverify.adversarial_accuracy(network, MIDDLE[None], np.array([_label(_small())]), "0.0001", workers=1)
    assert found.summary["holds"] == 1
