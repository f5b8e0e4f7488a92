"""Presets of certified training: what a step minimizes, schedules, averages, the epoch that is kept, and resuming."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mipverify.models import Traced, certified_loss, pgd_attack, small_box_centers, warmup_regularizer
from mipverify.models.architectures import build
from mipverify.models.training import Images, Progress, TrainingOptions, preset, read_network, train
from mipverify.models.training.files import read_record
from mipverify.models.training.loop import learning_rate_share, moving_average
from mipverify.models.training.measure import verified_accuracy
from mipverify.models.training.objective import Objective, Sums
from mipverify.models.training.selection import Best
from torch.nn import functional

from mipverify.cli.main import main
from mipverify.errors import InputError

NAMES = ("ibp", "crown-ibp", "sabr", "mtl-ibp")
SMALL = {"epochs": 4, "batch_size": 32, "learning_rate": 3e-3, "eps": 0.05}


class StopError(Exception):
    """Stands for a kill between two steps."""


def batch(data: tuple[Images, Images]) -> tuple[torch.Tensor, torch.Tensor]:
    images = data[0].first(16)
    return images.pixels, images.labels


def loss_of(options: TrainingOptions, data: tuple[Images, Images], progress: float) -> tuple[float, torch.nn.Module]:
    module = build("rs_cnn", (1, 8, 8), 4, seed=0)
    torch.manual_seed(5)
    loss = Objective(module, (1, 8, 8), options)(*batch(data), progress, Sums())
    return float(loss.detach()), module


def test_ibp_is_the_certified_loss(data: tuple[Images, Images]) -> None:
    (x, y), options = batch(data), preset("mnist-ibp", eps=0.05, radius_factor=1.0)
    found, module = loss_of(options, data, 1.0)
    assert found == pytest.approx(float(certified_loss(module, x, y, 0.05).detach()), rel=1e-5)
    # Half the radius is reached where the smooth growth is past its knee: the regularizer counts with 0.5 (1 - 1/2).
    half = (0.5 * (0.25**4 + 0.75 * 4 * 0.25**3) - 0.25**4) / (4 * 0.25**3) + 0.25
    found, module = loss_of(options, data, half * 20 / 70)
    wanted = certified_loss(module, x, y, 0.025) + 0.25 * warmup_regularizer(module, x, 0.025)
    assert found == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_normalized_bounds_by_the_statistics_of_centers(data: tuple[Images, Images]) -> None:
    (x, y), options = batch(data), preset("mnist-normalized", eps=0.3)
    torch.manual_seed(5)
    module = build(options.architecture, (1, 8, 8), 4, seed=0)
    found = Objective(module, (1, 8, 8), options)(x, y, 1.0, Sums())
    moved = {name: value.clone() for name, value in module.named_buffers()}
    again = build(options.architecture, (1, 8, 8), 4, seed=0)
    wanted = certified_loss(Traced(again, (1, 8, 8), statistics="centers"), x, y, 0.312)
    torch.testing.assert_close(found, wanted)
    for name, value in again.named_buffers():
        torch.testing.assert_close(moved[name], value)


def test_crown_ibp_goes_over_to_intervals(data: tuple[Images, Images]) -> None:
    (x, y), options = (
        batch(data),
        preset("mnist-crown-ibp", eps=0.025, ramp=(0.0, 1.0), ramp_shape="linear", warmup=0.0),
    )
    found, module = loss_of(options, data, 0.25)
    bounded = certified_loss(module, x, y, 0.0125, bounds="crown", crown_share=0.75)
    wanted = 0.75 * functional.cross_entropy(module(x), y) + 0.25 * bounded
    assert found == pytest.approx(float(wanted.detach()), rel=1e-5)
    found, module = loss_of(options, data, 1.0)
    assert found == pytest.approx(float(certified_loss(module, x, y, 0.05).detach()), rel=1e-5)


def test_sabr_bounds_small_boxes(data: tuple[Images, Images]) -> None:
    (x, y), options = batch(data), preset("mnist-sabr", eps=0.1)
    found, module = loss_of(options, data, 1.0)
    torch.manual_seed(5)
    centers = small_box_centers(module, x, y, 0.1, 0.4, steps=8, step_size=0.3 * 0.06)
    assert found == pytest.approx(float(certified_loss(module, centers, y, 0.04).detach()), rel=1e-4)


def test_mtl_ibp_mixes(data: tuple[Images, Images]) -> None:
    (x, y), options = batch(data), preset("mnist-mtl-ibp", eps=0.05, attack_steps=0, certified=0.3)
    found, module = loss_of(options, data, 1.0)
    wanted = certified_loss(module, x, y, 0.1, attacked=x, mixture="loss", alpha=0.3)
    assert found == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_attacks_go_as_far_as_they_are_told(data: tuple[Images, Images]) -> None:
    (x, y), options = batch(data), preset("mnist-mtl-ibp", eps=0.05, attack_factor=2.1, certified=0.25)
    found, module = loss_of(options, data, 1.0)
    torch.manual_seed(5)
    attacked = pgd_attack(module, x, y, 0.21, steps=1, step_size=2.1)  # twice the radius, and 2.1 times this
    assert float((attacked - x).abs().max()) == pytest.approx(0.21, rel=1e-3)
    wanted = 0.75 * functional.cross_entropy(module(attacked), y) + 0.25 * certified_loss(module, x, y, 0.1)
    assert found == pytest.approx(float(wanted.detach()), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "eps", "expected"),
    [
        ("mnist-ibp", 0.1, {"radius_factor": 2.0, "certified": 1.0}),
        ("mnist-ibp", 0.3, {"radius_factor": 4 / 3}),
        ("mnist-mtl-ibp", 0.1, {"radius_factor": 2.0, "certified": 0.01, "attack_steps": 1}),
        ("mnist-mtl-ibp", 0.3, {"radius_factor": 4 / 3, "certified": 0.08}),
        ("mnist-normalized", 0.1, {"radius_factor": 1.5, "certified": 0.005, "attack_steps": 1, "statistics": "clean"}),
        (
            "mnist-normalized",
            0.3,
            {"radius_factor": 1.04, "certified": 1.0, "attack_steps": 0, "statistics": "centers"},
        ),
        ("mnist-sabr", 0.1, {"radius_factor": 1.0, "small_box": 0.4}),
        ("mnist-sabr", 0.3, {"small_box": 0.6}),
        ("cifar10-mtl-ibp", 2 / 255, {"attack_factor": 2.1, "certified": 0.004, "epochs": 160}),
        ("cifar10-mtl-ibp", 8 / 255, {"attack_factor": 1.0, "certified": 0.5, "epochs": 260}),
        ("cifar10-sabr", 2 / 255, {"small_box": 0.1}),
        ("cifar10-sabr", 8 / 255, {"small_box": 0.7}),
    ],
)
def test_published_constants_depend_on_the_radius(name: str, eps: float, expected: dict[str, float]) -> None:
    options = preset(name, eps=eps)
    assert {key: getattr(options, key) for key in expected} == pytest.approx(expected)
    assert preset(name, eps=eps, radius_factor=1.25).radius_factor == 1.25


def test_published_schedules() -> None:
    mnist, cifar = preset("mnist-ibp"), preset("cifar10-ibp")
    assert (mnist.epochs, mnist.batch_size, mnist.learning_rate, mnist.gradient_clip) == (70, 256, 5e-4, 10.0)
    for options, epochs in ((mnist, (50, 60)), (cifar, (120, 140))):
        shares = [learning_rate_share(epoch / options.epochs, options.milestones) for epoch in range(options.epochs)]
        expected = [1.0] * epochs[0] + [0.2] * (epochs[1] - epochs[0]) + [0.04] * (options.epochs - epochs[1])
        assert shares == pytest.approx(expected)
    assert mnist.ramp == pytest.approx((0, 20 / 70))
    assert cifar.ramp == pytest.approx((1 / 160, 81 / 160))


@pytest.mark.parametrize("name", NAMES)
def test_presets_run_on_the_shape_of_cifar10(name: str, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for part, count in (("train", 96), ("test", 20)):
        labels = chance.integers(0, 10, count)
        images = (chance.integers(0, 100, (count, 32, 32, 3)) + 15 * labels[:, None, None, None]).astype(np.uint8)
        np.savez(tmp_path / f"{part}.npz", images=images, labels=labels)
    arguments = ["--preset", f"cifar10-{name}", "--eps", "2/255", "--epochs", "2", "--batch-size", "32", "--quiet"]
    files = [
        "--data",
        str(tmp_path / "train.npz"),
        "--test",
        str(tmp_path / "test.npz"),
        "--out",
        str(tmp_path / "run"),
    ]
    kept = ["--validation", "20", "--average", "0.5", "--architecture", "cnn_a"]
    assert main(["train", *arguments, *files, *kept]) == 0
    record = json.loads((tmp_path / "run" / "training.json").read_text())
    assert len(record["epochs"]) == 2
    assert all(math.isfinite(row["loss"]) and 0 <= row["verified accuracy"] <= 1 for row in record["epochs"])
    assert read_network(tmp_path / "run").input_shape == (3, 32, 32)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns(name: str, data: tuple[Images, Images], tmp_path: Path) -> None:
    trained = train(preset(f"mnist-{name}", **{**SMALL, "epochs": 12}), *data, tmp_path / "run")
    assert verified_accuracy(trained, data[1], 0.05) > 0.9


def test_resumes_with_average_and_best(data: tuple[Images, Images], tmp_path: Path) -> None:
    options = preset("mnist-sabr", **SMALL, average=0.9, validation=40)
    whole = train(options, *data, tmp_path / "whole").module.state_dict()
    one = read_record(tmp_path / "whole")
    for step in (3, 18, 30):
        parts = tmp_path / str(step)

        def stop(progress: Progress, step: int = step) -> None:
            if progress.step == step and not progress.finished:
                raise StopError

        with pytest.raises(StopError):
            train(options, *data, parts, report=stop)
        train(options, *data, parts, resume=True)
        two = read_record(parts)
        assert one["weights_sha256"] == two["weights_sha256"]
        assert one["kept_epoch"] == two["kept_epoch"]
        resumed = read_network(parts).module.state_dict()
        assert all(torch.equal(a, b) for a, b in zip(whole.values(), resumed.values(), strict=True))


def test_average(data: tuple[Images, Images], tmp_path: Path) -> None:
    plain = preset("mnist-ibp", **{**SMALL, "epochs": 1, "batch_size": 160})  # two steps
    module = build("rs_cnn", (1, 8, 8), 4, seed=0)
    seen: list[dict[str, torch.Tensor]] = []

    def watch(progress: Progress) -> None:
        if not progress.finished:
            seen.append({name: value.clone() for name, value in module.state_dict().items()})

    begun = replace(train(plain, *data, tmp_path / "other"), module=module)
    averaged = replace(plain, average=0.75)
    found = train(averaged, *data, tmp_path / "run", initial=begun, report=watch).module.state_dict()
    first, second = seen
    for name, value in found.items():  # the first step's weights are where the average begins, and are soon forgotten
        assert torch.allclose(value, 2 / 11 * first[name] + 9 / 11 * second[name], atol=1e-6)
    assert any(not torch.allclose(found[name], second[name], atol=1e-6) for name in found)


@pytest.mark.parametrize(("count", "kept"), [(1, 2 / 11), (8, 0.5), (26, 0.75), (1000, 0.75)])
def test_an_average_forgets_more_in_its_first_steps(count: int, kept: float) -> None:
    averages = [torch.ones(3), torch.ones(2, 2)]
    moving_average(0.75)(averages, [torch.zeros(3), torch.zeros(2, 2)], torch.tensor(count))
    assert all(torch.allclose(value, torch.tensor(kept)) for value in averages)


def test_the_best_epoch_is_kept(data: tuple[Images, Images], tmp_path: Path) -> None:
    # A learning rate that destroys the network after some epochs: the last is not the best.
    options = preset("mnist-ibp", **{**SMALL, "epochs": 6, "learning_rate": 0.02}, validation=80)
    trained = train(options, *data, tmp_path / "run")
    record = read_record(tmp_path / "run")
    verified = [row["verified accuracy"] for row in record["epochs"]]
    assert verified[record["kept_epoch"] - 1] == max(verified)
    held = data[0].without_last(80)[1]
    assert verified_accuracy(trained, held, options.eps) == max(verified)
    assert verified_accuracy(read_network(tmp_path / "run"), held, options.eps) == max(verified)
    assert record["training_images"] == 240


def test_an_interrupted_run_leaves_the_best_so_far(data: tuple[Images, Images], tmp_path: Path) -> None:
    options = preset("mnist-ibp", **SMALL, validation=40, average=0.5)

    def stop(progress: Progress) -> None:
        if progress.epoch == 3 and not progress.finished:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(options, *data, tmp_path / "run", report=stop)
    record = read_record(tmp_path / "run")
    best = max(row["verified accuracy"] for row in record["epochs"])
    held = data[0].without_last(40)[1]
    assert len(record["epochs"]) == 2
    assert verified_accuracy(read_network(tmp_path / "run"), held, options.eps) == best


def test_stops_when_nothing_gets_better() -> None:
    best, module = Best(), torch.nn.Linear(2, 2)
    for epoch, verified in ((1, 0.2), (2, 0.5), (3, 0.4), (4, 0.5), (5, 0.1)):
        best.consider(epoch, verified, module)
    assert (best.epoch, best.verified) == (4, 0.5)
    assert not best.is_stale(5, 0, patience=2)
    assert best.is_stale(6, 0, patience=2)
    assert not best.is_stale(6, 5.5, patience=2)  # the radius has just grown
    assert not best.is_stale(600, 0, patience=0)


def test_early_stopping(data: tuple[Images, Images], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = iter((0.3, 0.6, 0.5, 0.4, 0.9))
    monkeypatch.setattr("mipverify.models.training.loop.verified_accuracy", lambda *_: next(figures))
    options = preset("mnist-ibp", **{**SMALL, "epochs": 30}, ramp=(0.0, 0.05), validation=40, patience=2)
    train(options, *data, tmp_path / "run")
    record = read_record(tmp_path / "run")
    assert (len(record["epochs"]), record["kept_epoch"], record["finished"]) == (4, 2, True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patience": 3}, "--patience needs --validation"),
        ({"small_box": 0.0}, "--small-box must be above 0"),
        ({"small_box": 0.5, "certified": 0.0}, "--small-box needs --certified"),
        ({"statistics": "running"}, "--statistics 'running': one of clean, centers"),
        ({"statistics": "centers", "small_box": 0.5}, "--statistics centers needs bounds of whole balls"),
        ({"statistics": "centers", "certified": 0.0}, "--statistics centers needs bounds"),
        ({"average": 1.0}, "--average must be at least 0"),
        ({"milestones": (0.5, 0.4)}, "milestones"),
        ({"ramp_shape": "bent"}, "ramp_shape"),
    ],
)
def test_options_that_make_no_sense(changes: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        preset("mnist-ibp", **changes)


def test_more_held_out_than_there_is(data: tuple[Images, Images], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few to hold 320 out"):
        train(preset("mnist-ibp", **SMALL, validation=320), *data, tmp_path / "run")
