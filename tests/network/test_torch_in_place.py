"""Modules that work in place are read as they compute, or refused: never as if each operation made a new tensor."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from mipverify.errors import InputError  # noqa: E402
from mipverify.network import Network  # noqa: E402
from mipverify.network.torch_import import packed, unpacked  # noqa: E402


class Middle(nn.Module):
    """A layer, something in the middle, and another layer."""

    def __init__(self, middle: Callable[[Any], Any]):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.relu = nn.Linear(4, 8), nn.Linear(8, 3), nn.ReLU(inplace=True)
        self.middle = middle

    def forward(self, x: Any) -> Any:
        return self.last(self.middle(self.first(x)))


def added(h: Any) -> Any:
    other = h
    h += 1
    return h.relu() + other


def scaled(h: Any) -> Any:
    other = h
    h -= 0.5
    h *= 2
    h /= 3
    return h.relu() - 2 * other


def chained(h: Any) -> Any:
    g = functional.relu(h, inplace=True)
    g.mul_(2)
    return h + g


def itself(h: Any) -> Any:
    h.add_(h)
    return h.relu()


def difference(h: Any) -> Any:
    r = h.relu()
    h.sub_(r)
    return h + r


def copied(h: Any) -> Any:
    d = h.clone()
    d.relu_()
    return h + d


def bounded(h: Any) -> Any:
    functional.leaky_relu_(h.clamp_(-0.5, 0.5), 0.2)
    return h.div_(2).abs_()


def view(h: Any) -> Any:
    v = h.view(-1, 2, 4)
    v.relu_()
    return v.flatten(1)


READ = (added, scaled, chained, itself, difference, copied, bounded, view)


def _agrees(network: Network, module: nn.Module) -> None:
    x = torch.randn(20, 4)
    with torch.no_grad():
        np.testing.assert_allclose(network.forward(x[:, None])[:, 0], module(x), atol=1e-5)


@pytest.mark.parametrize("middle", READ)
def test_other_names_of_a_tensor_are_changed(middle: Callable[[Any], Any]) -> None:
    module = Middle(middle)
    _agrees(Network.from_torch(module, (4,)), module)


def test_a_layer_in_place_before_a_residual_sum() -> None:
    module = Middle(lambda h: module.relu(h) + h)
    _agrees(Network.from_torch(module, (4,)), module)


def test_whole_numbers_do_not_change() -> None:
    class Sized(Middle):
        def forward(self, x: Any) -> Any:
            count = x.shape[0]
            same = count
            count += 1
            return self.last(torch.relu(self.first(x)).view(same, 8)) + (count - same)

    module = Sized(lambda h: h)
    _agrees(Network.from_torch(module, (4,)), module)


def test_other_processes_read_the_same() -> None:
    sent = unpacked(packed(Middle(added)))
    _agrees(Network.from_torch(sent, (4,)), Middle(added))
    assert pickle.dumps(sent)


def through_view(h: Any) -> Any:
    v = h.view(-1, 2, 4)
    v.relu_()
    return h


def through_part(h: Any) -> Any:
    h.chunk(2, 1)[0].relu_()
    return h


def through_detached(h: Any) -> Any:
    h.detach().relu_()
    return h


@pytest.mark.parametrize("middle", [through_view, through_part, through_detached])
def test_changes_through_a_view_are_refused(middle: Callable[[Any], Any]) -> None:
    with pytest.raises(InputError, match="in place, which is read later"):
        Network.from_torch(Middle(middle), (4,))
