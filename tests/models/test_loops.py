"""Losses in the loops that people have: mixed precision, wrappers, memory formats, checkpointing, batch statistics."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from mipverify.models import (
    GradientShare,
    ReLUStabilityLoss,
    Schedule,
    Traced,
    adversarial_loss,
    certified_loss,
    clean_statistics,
    losses,
    pgd_attack,
    relu_stability_loss,
    weight_sparsity,
)
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from mipverify.errors import InputError

EPS = 0.02


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(96, 5),
    )


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 1, 8, 8, generator=generator), torch.arange(count) % 5


LOSSES: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "stability": lambda m, x, y: relu_stability_loss(m, x, EPS),
    "stability, improved": lambda m, x, y: relu_stability_loss(m, x, EPS, bounds="improved_interval", rows=None),
    "stability, crown": lambda m, x, y: relu_stability_loss(m, x, EPS, bounds="crown", rows=None),
    "certified": lambda m, x, y: certified_loss(m, x, y, EPS),
    "certified, crown": lambda m, x, y: certified_loss(m, x, y, EPS, bounds="crown"),
    "sparsity": lambda m, x, y: weight_sparsity(m, tuple(x.shape[1:])),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_no_bit(name: str, training: bool, dtype: torch.dtype) -> None:
    module, (x, y) = network().train(training), batch()
    plain = LOSSES[name](module, x, y)
    plain.backward()
    expected = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    module.zero_grad()
    with torch.autocast("cpu", dtype=dtype):
        found = LOSSES[name](module, x, y)
    found.backward()
    assert found.dtype == torch.float32
    assert found.item() == plain.item()
    for a, b in zip(expected, [p.grad for p in module.parameters() if p.grad is not None], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_inputs_of_any_type(name: str, dtype: torch.dtype) -> None:
    module, (x, y) = network().train(), batch()
    found = LOSSES[name](module, x.to(dtype), y)
    assert found.item() == pytest.approx(LOSSES[name](module, x.to(dtype).float(), y).item(), rel=1e-5)
    assert bool(torch.isfinite(found))


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Sequential, reentrant: bool):
        super().__init__()
        self.first, self.rest, self.reentrant = inner[:4], inner[4:], reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(checkpoint(self.first, x, use_reentrant=self.reentrant))


class Called(nn.Module):
    """A module that calls itself through a wrapper of a user's own."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "compiled": torch.compile,
    "data parallel": nn.DataParallel,
    "average": AveragedModel,
    "wrapped": Called,
    "channels last": lambda m: m.to(memory_format=torch.channels_last),
    "checkpointed": lambda m: Checkpointed(m, False),
    "checkpointed, reentrant": lambda m: Checkpointed(m, True),
}


@pytest.mark.parametrize("name", ["stability", "stability, crown", "certified"])
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("training", [True, False])
def test_wrappers_change_nothing(name: str, wrap: Callable[[Any], Any], training: bool) -> None:
    (x, y), module = batch(), network().train(training)
    wrapped = wrap(copy.deepcopy(module)).train(training)
    given = x.contiguous(memory_format=torch.channels_last)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # reentrant checkpoints of inputs without gradients
        found = LOSSES[name](wrapped, given, y)
    found.backward()
    expected = LOSSES[name](module, x, y)
    expected.backward()
    torch.testing.assert_close(found, expected)
    for a, b in zip(wrapped.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4)
    assert [p.training for p in wrapped.modules()] == [training] * len(list(wrapped.modules()))


@pytest.fixture
def group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_distributed_data_parallel_gets_the_gradients_of_both_terms() -> None:
    (x, y), module = batch(), network().train()
    module[7] = nn.Identity()
    parallel = nn.parallel.DistributedDataParallel(copy.deepcopy(module))
    for m in (parallel, module):
        (nn.functional.cross_entropy(m(x), y) + 0.01 * relu_stability_loss(m, x, EPS)).backward()
    for a, b in zip(parallel.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_a_step_with_a_scaler_and_half_precision_is_that_without() -> None:
    (x, y), plain = batch(), network().train()
    plain[7] = nn.Identity()
    scaled = copy.deepcopy(plain)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for module in (plain, scaled):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        loss = 0.01 * relu_stability_loss(module, x, EPS) + certified_loss(module, x, y, EPS)
        if module is plain:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    for a, b in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_attack_runs_in_mixed_precision_and_stays_in_the_ball() -> None:
    (x, y), module = batch(), network().eval()
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            attacked = pgd_attack(module, x, y, EPS)
            loss = adversarial_loss(module, x, y, EPS)
            mixed = certified_loss(module, x, y, EPS, attacked=attacked, mixture="logits", alpha=0.5)
        assert attacked.dtype == torch.float32
        assert float((attacked - x).abs().max()) <= EPS * (1 + 1e-6)
        assert bool(torch.isfinite(torch.stack([loss, mixed])).all())
    with pytest.raises(InputError, match="outside of the domain"):
        pgd_attack(module, x + 1, y, EPS)


def test_a_compiled_step_may_hold_the_losses() -> None:
    (x, y), module = batch(), network().eval()

    def step(x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(module(x), y) + relu_stability_loss(module, x, EPS)

    compiled = torch.compile(step, backend="eager")
    torch.testing.assert_close(compiled(x, y), step(x, y))


# Batch normalization


def test_in_training_mode_bounds_are_those_of_the_batch_statistics() -> None:
    """At radius zero the bounds are the values that the module computes in training mode, without dropout."""
    module, (x, _) = network().train(), batch()
    module[7] = nn.Identity()
    traced = Traced(module, (1, 8, 8))
    found = traced.network_at(x).forward(x[:, None]).reshape(len(x), -1)
    torch.testing.assert_close(found, module(x), atol=1e-5, rtol=1e-4)
    module.eval()
    torch.testing.assert_close(traced.network_at(x).forward(x[:, None]).reshape(len(x), -1), module(x))


def test_the_clean_pass_leaves_no_trace() -> None:
    module, (x, _) = network().train(), batch()
    before, random = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    relu_stability_loss(module, x, EPS).backward()
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(random, torch.get_rng_state())
    assert not any(part._forward_hooks for part in module.modules())


def test_frozen_normalizations_keep_their_running_statistics() -> None:
    module, (x, _) = network().train(), batch()
    module[1].eval()
    assert list(clean_statistics(module, x)) == [module[5]]
    for part in (module[1], module[5]):
        part.eval()
    assert clean_statistics(module, x) == {}
    assert relu_stability_loss(module, x, EPS).item() == relu_stability_loss(module.eval(), x, EPS).item()


def test_the_loss_does_not_shrink_weights_before_a_normalization() -> None:
    """Scaling them changes nothing that is computed, so the loss must have no slope in that direction."""
    module, (x, _) = network().train(), batch()
    relu_stability_loss(module, x, EPS).backward()
    weight = module[0].weight
    assert weight.grad.abs().max() > 1
    along = (weight.grad * weight.detach()).sum((1, 2, 3))  # for each channel
    assert float(along.abs().max()) < 1e-3 * float((weight.grad.norm() * weight.norm()).detach())
    module.zero_grad()
    relu_stability_loss(module.eval(), x, EPS).backward()
    along = (weight.grad * weight.detach()).sum((1, 2, 3))
    assert float(along.abs().max()) > 1e-2 * float((weight.grad.norm() * weight.norm()).detach())  # as it was


def test_one_value_for_each_channel_is_refused() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).train()
    with pytest.raises(InputError, match="no variance"):
        relu_stability_loss(module, torch.rand(1, 3), EPS)


# Modules, schedules and weights


def test_the_mean_over_units_carries_over_between_architectures() -> None:
    x = torch.rand(4, 6)
    for width in (10, 1000):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 2))
        each = relu_stability_loss(module, x, 0.1, reduction="unit").item()
        assert each == pytest.approx(relu_stability_loss(module, x, 0.1).item() / width)
        assert -1 <= each <= 1


def test_losses_as_modules_are_the_functions() -> None:
    module, (x, y) = network().train(), batch()
    compiled = torch.compile(module)
    attacked = x + 0.5 * EPS * torch.ones_like(x) * (x < 0.5)
    stability = ReLUStabilityLoss(EPS, bounds="crown", rows=None, reduction="unit")
    expected = relu_stability_loss(module, x, EPS, bounds="crown", rows=None, reduction="unit")
    for m in (module, compiled, Traced(module, (1, 8, 8))):
        torch.testing.assert_close(stability(m, x), expected)
    certified = losses.CertifiedLoss(EPS, mixture="loss", alpha=0.5)
    module.eval()
    torch.testing.assert_close(
        certified(module, x, y, attacked),
        certified_loss(module, x, y, EPS, attacked=attacked, mixture="loss", alpha=0.5),
    )
    torch.testing.assert_close(
        losses.AdversarialLoss(EPS, random_start=False)(module, x, y),
        adversarial_loss(module, x, y, EPS, random_start=False),
    )
    torch.testing.assert_close(losses.WeightSparsity((1, 8, 8))(module), weight_sparsity(module, (1, 8, 8)))
    assert copy.deepcopy(stability)._traced is None
    assert list(stability.parameters()) == []


def test_a_loss_follows_its_schedule_and_keeps_its_place() -> None:
    module, (x, _) = network().eval(), batch()
    loss = ReLUStabilityLoss(Schedule(0.1, warmup=4))
    found = []
    for _ in range(6):
        found.append(loss.eps)
        loss.step()
    assert found == pytest.approx([0, 0.025, 0.05, 0.075, 0.1, 0.1])
    again = ReLUStabilityLoss(Schedule(0.1, warmup=4))
    again.step()
    assert again(module, x).item() == relu_stability_loss(module, x, 0.025).item()
    again.load_state_dict(loss.state_dict())
    assert again(module, x).item() == relu_stability_loss(module, x, 0.1).item()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_weight_keeps_a_share_of_the_gradient(share: float) -> None:
    module, (x, y) = network().eval(), batch()
    balance = GradientShare(share, every=2)
    parameters = list(module.parameters())

    def terms() -> tuple[Tensor, Tensor]:
        return nn.functional.cross_entropy(module(x), y), relu_stability_loss(module, x, EPS)

    def norm(value: Tensor) -> float:
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        return float(torch.cat([g.reshape(-1) for g in gradients if g is not None]).norm())

    total = balance(*terms(), parameters)
    first, second = (norm(v) for v in terms())
    weight = float(balance.weight)
    assert weight * second / (weight * second + first) == pytest.approx(share, rel=1e-4)
    loss, penalty = terms()
    assert total.item() == pytest.approx((loss + weight * penalty).item())
    total.backward()
    balance(*terms(), parameters)
    assert float(balance.weight) == weight  # measured at every second call only
    again = GradientShare(share, every=2)
    again.load_state_dict(balance.state_dict())
    assert float(again.weight) == weight


def test_bad_schedules_and_shares_are_refused() -> None:
    for make in (lambda: GradientShare(1.0), lambda: GradientShare(0.1, every=0), lambda: Schedule(-1, 3)):
        with pytest.raises(InputError):
            make()


def test_unstable_units_as_a_metric() -> None:
    metrics = pytest.importorskip("mipverify.models.metrics")
    from mipverify.models import unstable_units

    module, (x, _) = network().eval(), batch()
    counted = unstable_units(module, x, EPS)
    number, share = metrics.UnstableUnitsMetric(EPS), metrics.UnstableUnitsMetric(EPS, relative=True)
    for part in x.split(4):
        number.update(module, part)
        share.update(module, part)
    assert float(number.compute()) == pytest.approx(counted.mean.sum())
    assert float(share.compute()) == pytest.approx(counted.mean.sum() / sum(counted.units))
    number.reset()
    number.update(module, x[:1])
    assert float(number.compute()) == counted.counts[0].sum()
