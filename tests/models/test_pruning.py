"""Pruning of weights and of ReLUs: what becomes zero stays zero, in training, in networks and in ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mipverify.models import (
    MaskedReLU,
    Traced,
    make_permanent,
    pgd_attack,
    prune_relus,
    prune_small_weights,
    relu_stability_loss,
    unstable_units,
)
from torch import Tensor, nn
from torch.nn.utils import prune

import mipverify
from mipverify.errors import InputError
from mipverify.network.replay import replay_of


def classifier() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(48, 12), nn.ReLU(), nn.Linear(12, 4)
    )


def images(count: int = 40) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def export(module: nn.Module, file: Path) -> mipverify.Network:
    """The module as an ONNX file, read again."""
    torch.onnx.export(
        module.eval(), (images(1),), str(file), dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "N"}}
    )
    return mipverify.load(file)


def outputs(network: mipverify.Network, x: Tensor) -> np.ndarray:
    return network.forward(x.numpy()[:, None].astype(np.float64)).reshape(len(x), -1)


def test_small_weights_become_zero_and_stay() -> None:
    module = classifier()
    before = {name: p.clone() for name, p in module.named_parameters()}
    zeros = prune_small_weights(module, 0.1)
    assert zeros == {name: int((before[f"{name}.weight"].abs() < 0.1).sum()) for name in ("0", "3", "5")}
    assert min(zeros.values()) > 0
    for name in zeros:
        expected = torch.where(before[f"{name}.weight"].abs() < 0.1, 0.0, before[f"{name}.weight"])
        assert torch.equal(module.get_submodule(name).weight, expected)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        module(images()).square().sum().backward()
        optimizer.step()
    make_permanent(module)
    for name, count in zeros.items():
        assert isinstance(module.get_submodule(name).weight, nn.Parameter)
        assert int((module.get_submodule(name).weight == 0).sum()) == count
        assert not torch.equal(module.get_submodule(name).weight, before[f"{name}.weight"])


def test_masks_of_torch_are_kept() -> None:
    module = classifier()
    prune.random_unstructured(module[3], "weight", amount=0.5)
    dropped = module[3].weight == 0
    zeros = prune_small_weights(module, 0.05)
    assert bool((module[3].weight[dropped] == 0).all())
    assert zeros["3"] > int(dropped.sum())


def test_hardly_switching_units_are_replaced() -> None:
    """Against activity counted by hand."""
    module, x = classifier(), images(200)
    with torch.no_grad():
        share = (module[0](x) > 0).double().mean(0)
        later = (module[:4](x) > 0).double().mean(0)
    counts = prune_relus(module, x, 0.1)
    assert isinstance(module[1], MaskedReLU)
    assert counts["1"].zero == int((share < 0.1).sum())
    assert counts["1"].linear == int((share > 0.9).sum())
    assert counts["4"].zero == int((later < 0.1).sum())
    assert counts["1"].kept + counts["1"].zero + counts["1"].linear == 48
    z = torch.randn(7, 3, 4, 4)
    expected = torch.where(share > 0.9, z, torch.where(share < 0.1, 0.0, z.relu()))
    torch.testing.assert_close(module[1](z), expected.float())


def test_batches_and_attacks() -> None:
    x = images(120)
    whole, parts, attacked, shifted = (classifier() for _ in range(4))
    counts = prune_relus(whole, x, 0.15)
    assert prune_relus(parts, x.split(50), 0.15) == counts
    assert torch.equal(parts[1].source, whole[1].source)
    points: list[Tensor] = []

    def attack(batch: Tensor) -> Tensor:
        points.append(pgd_attack(attacked, batch, attacked(batch).argmax(1), 0.3))
        return points[-1]

    prune_relus(attacked, x, 0.15, attack=attack)
    prune_relus(shifted, torch.cat(points), 0.15)
    assert torch.equal(attacked[1].source, shifted[1].source)
    assert not torch.equal(attacked[1].source, whole[1].source)


def test_pruning_again_prunes_further() -> None:
    module = classifier()
    first = prune_relus(module, images(), 0.05)
    x = images()
    with torch.no_grad():
        before = module[:2](x)
    second = prune_relus(module, images(), 0.2)
    assert second["1"].kept < first["1"].kept
    assert second["1"].linear >= first["1"].linear
    assert second["1"].zero >= first["1"].zero
    with torch.no_grad():
        after = module[:2](x)
    assert bool((after[:, (before == 0).all(0)] == 0).all())


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5])
def test_masks_survive_export(tmp_path: Path, fraction: float) -> None:
    """Equal outputs and equally many ReLUs: torch, its network, the ONNX file, its network, ONNX Runtime."""
    module = classifier()
    prune_small_weights(module, 0.05)
    counts = prune_relus(module, images(), fraction)
    x = images(30) * 1.5 - 0.2
    with torch.no_grad():
        expected = module(x).numpy()
    ours, read = Traced(module, (1, 8, 8)).network, export(module, tmp_path / "net.onnx")
    np.testing.assert_allclose(outputs(ours, x), expected, atol=1e-5)
    np.testing.assert_allclose(outputs(read, x), expected, atol=1e-5)
    np.testing.assert_allclose(replay_of(read).run(x.reshape(30, -1).numpy()), expected, atol=1e-5)
    units = [sum(int(np.prod(net.nodes[i].shape)) for i in net.relus) for net in (ours, read)]
    assert units == [sum(count.kept for count in counts.values())] * 2
    zeros = [
        t.operator.weight
        for node in read.nodes[1:]
        for t in getattr(node, "terms", ())
        if hasattr(t.operator, "weight")
    ]
    assert sum(int((w == 0).sum()) for w in zeros) == sum(int((module[i].weight == 0).sum()) for i in (0, 3, 5))


def test_a_layer_may_lose_all_its_relus(tmp_path: Path) -> None:
    shape = (3, 4, 4)
    for linear in (torch.zeros(shape, dtype=torch.bool), torch.ones(shape, dtype=torch.bool)):
        module = classifier()
        module[1] = MaskedReLU(torch.zeros(shape, dtype=torch.bool), linear)
        x = images(5)
        read = export(module, tmp_path / "net.onnx")
        with torch.no_grad():
            np.testing.assert_allclose(outputs(read, x), module(x).numpy(), atol=1e-5)
        assert len(read.relus) == 1
        assert len(Traced(module, (1, 8, 8)).network.relus) == 1


def test_masked_relus_are_trained_and_bounded() -> None:
    module = classifier()
    prune_relus(module, images(), 0.1)
    traced = Traced(module, (1, 8, 8))
    for bounds in ("interval", "improved_interval", "crown"):
        module.zero_grad()
        relu_stability_loss(traced, images(4), 0.1, bounds=bounds).backward()
        assert module[0].weight.grad.abs().sum() > 0
    kept = unstable_units(module, images(4), 0.1)
    assert kept.units == (len(module[1].kept), len(module[4].kept))


def test_state_is_saved_with_the_module(tmp_path: Path) -> None:
    module = classifier()
    prune_relus(module, images(), 0.1)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    again = classifier()
    prune_relus(again, images(), 0.1)
    for p in again.parameters():
        nn.init.zeros_(p)
    again.load_state_dict(torch.load(tmp_path / "state.pt"))
    torch.testing.assert_close(again(images()), module(images()))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.second(self.relu(self.first(x))))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="fraction"):
        prune_relus(classifier(), images(), 0.7)
    with pytest.raises(InputError, match=r"no nn\.ReLU"):
        prune_relus(nn.Linear(2, 2), torch.rand(3, 2), 0.1)
    with pytest.raises(InputError, match="'relu' is used 2 times"):
        prune_relus(Twice(), torch.rand(3, 3), 0.1)
    with pytest.raises(InputError, match="inputs"):
        prune_relus(classifier(), [], 0.1)
    with pytest.raises(InputError, match="threshold"):
        prune_small_weights(classifier(), float("nan"))
    masked = MaskedReLU(torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.bool))
    with pytest.raises(InputError, match="do not fit"):
        masked(torch.zeros(2, 4))
    with pytest.raises(InputError, match="disjoint"):
        MaskedReLU(torch.ones(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool))
