"""The losses with torch's own tools, with Lightning, and in the examples; and that importing them costs nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mipverify.models import (
    RadiusSchedule,
    Schedule,
    Traced,
    certified_loss,
    prune_small_weights,
    relu_stability_loss,
    unstable_units,
    weight_sparsity,
)
from torch import Tensor, nn

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run_example(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main()


@pytest.mark.filterwarnings("ignore")
def test_plain_pytorch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_example("train_plain_pytorch", monkeypatch, "--epochs", "12", "--verify", "1")
    out = capsys.readouterr().out
    before, after = (line for line in out.splitlines() if line.startswith(("before", "after")))
    assert undecided(after) < undecided(before)
    assert "digit 0: " in out


@pytest.mark.filterwarnings("ignore")
def test_torch_prune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_example("train_with_prune", monkeypatch, "--epochs", "6")
    out = capsys.readouterr().out
    pruned, finetuned = (
        line.split("right, ")[1].split()[0] for line in out.splitlines() if line.startswith(("pruned", "finetuned"))
    )
    assert int(pruned) == int(finetuned) < 12000
    assert "exported: Network" in out


@pytest.mark.filterwarnings("ignore")
def test_lightning(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lightning")
    run_example("train_lightning", monkeypatch, "--epochs", "15")
    out = capsys.readouterr().out
    before, after = (line for line in out.splitlines() if line.startswith(("before", "after")))
    assert undecided(after) < 0.7 * undecided(before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_callback_adds_the_penalty(accumulate: int) -> None:
    """One step of plain gradient descent equals the step on the sum of losses, written out."""
    lightning = pytest.importorskip("lightning")
    from mipverify.models import StabilityCallback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    x, y = torch.rand(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=6 // accumulate)
    callback = StabilityCallback(RadiusSchedule(0.1, 0), stability=0.01, sparsity=0.003, attribute="net")
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", accumulate_grad_batches=accumulate, callbacks=[callback], **quiet
    )
    module, expected = Module(), Module()
    trainer.fit(module, data)
    assert trainer.callback_metrics["relu_stability"] < 0
    for a, b in zip(x.chunk(accumulate), y.chunk(accumulate), strict=True):
        loss = nn.functional.cross_entropy(expected.net(a), b) + 0.01 * relu_stability_loss(expected.net, a, 0.1)
        ((loss + 0.003 * weight_sparsity(expected.net, (4,))) / accumulate).backward()
    for mine, theirs in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs - 0.1 * theirs.grad)


@pytest.mark.filterwarnings("ignore")
def test_the_callback_follows_schedules_and_watches_unstable_units() -> None:
    """On the first validation batches, at the final radius; a weight that begins at zero adds nothing at first."""
    lightning = pytest.importorskip("lightning")
    from mipverify.models import StabilityCallback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            pass

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    x, y = torch.rand(8, 4), torch.tensor([0, 1] * 4)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    steps: list[float] = []

    class Watching(StabilityCallback):
        def on_before_backward(self, trainer: object, pl_module: object, loss: Tensor) -> None:
            before = loss.item()
            super().on_before_backward(trainer, pl_module, loss)
            steps.append(abs(loss.item() - before))

    callback = Watching(
        Schedule(0.1, warmup=4), stability=Schedule(0.5, warmup=2), sparsity=0.0, reduction="unit", attribute="net"
    )
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=[callback], enable_model_summary=False, **options
    )
    module = Module()
    trainer.fit(module, data, data)
    assert steps[0] == 0
    assert 0.05 < steps[3] < 0.5
    found = unstable_units(module.net, x[:4], 0.1).mean.sum()
    assert float(trainer.callback_metrics["unstable_units"]) == pytest.approx(found)


def test_without_lightning_the_callback_says_what_is_missing() -> None:
    if importlib.util.find_spec("lightning") is not None:
        pytest.skip("Lightning is installed")
    with pytest.raises(ImportError, match=r"mipverify\[lightning\]"):
        from mipverify.models import StabilityCallback  # noqa: F401


def test_importing_costs_no_torch() -> None:
    code = "import sys, mipverify.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pruned_layers_are_regularized_through_their_masks() -> None:
    """Gradients reach the originals, zero where the mask is."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))
    prune_small_weights(module, 0.2)
    traced, x, y = Traced(module, (6,)), torch.rand(4, 6), torch.tensor([0, 1, 2, 0])
    loss = relu_stability_loss(traced, x, 0.1) + weight_sparsity(traced) + certified_loss(traced, x, y, 0.1)
    loss.backward()
    for layer in (module[0], module[2]):
        dropped = layer.weight_mask == 0
        assert dropped.any()
        assert (layer.weight_orig.grad[dropped] == 0).all()
        assert (layer.weight_orig.grad[~dropped] != 0).any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 3, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(108, 9),
        nn.ReLU(),
        nn.Linear(9, 3),
    ).double()
    x, y = torch.rand(3, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 2, 1])
    values, gradients = [], []
    for device in ("cpu", "cuda"):
        module.to(device).zero_grad()
        traced = Traced(module, (1, 8, 8))
        a, b = x.to(device), y.to(device)
        losses = [
            relu_stability_loss(traced, a, 0.1, bounds=m, rows=None) for m in ("interval", "improved_interval", "crown")
        ]
        losses += [certified_loss(traced, a, b, 0.1, bounds=m) for m in ("interval", "crown")]
        losses += [
            relu_stability_loss(traced, a, 0.1, bounds="crown", rows=7, generator=torch.Generator().manual_seed(1))
        ]
        torch.stack(losses).sum().backward()
        values.append(torch.stack(losses).detach().cpu())
        gradients.append([p.grad.cpu().clone() for p in module.parameters()])
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def undecided(line: str) -> float:
    """The mean number of undecided units in a printed `UnstableUnits`."""
    return float(line.split("all ")[1].split("/")[0])
