"""`mipverify train`, `prune` and `finetune`, from files to files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from mipverify.models.pruning import MaskedReLU
from mipverify.models.training import read_network

import mipverify
from mipverify.cli.main import main

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run the command line in the folder of the data."""
    monkeypatch.chdir(folder)

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


TRAIN = [
    "train", "--preset", "mnist-stable", "--data", "train.npz", "--test", "test.npz", "--eps", "0.05",
    "--epochs", "6", "--batch-size", "32", "--learning-rate", "0.005",
]  # fmt: skip


def same_outputs(directory: Path) -> None:
    """network.onnx is what network.pt is, for ONNX Runtime and for the importer."""
    module = read_network(directory).module.eval()
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        expected = module(x).numpy()
    (found,) = onnxruntime.InferenceSession(directory / "network.onnx").run(None, {"image": x.numpy()})
    assert np.allclose(found, expected, atol=1e-5)
    network = mipverify.load(directory / "network.onnx")
    assert np.allclose(network.forward(x.numpy()[:, None]).reshape(3, -1), expected, atol=1e-5)


def test_train_prune_finetune(cli: Cli, folder: Path) -> None:
    code, out, err = cli(*TRAIN, "--out", "run", "--evaluate", "--samples", "0:20")
    assert code == 0, err
    assert err.count("epoch ") == 6
    assert "exact adversarial accuracy" in out
    record = json.loads((folder / "run" / "training.json").read_text())
    assert record["finished"]
    assert record["options"]["eps"] == 0.05
    assert len(record["epochs"]) == 6
    assert record["epochs"][-1]["test accuracy"] > 0.9
    assert len(record["data_sha256"]) == 64
    same_outputs(folder / "run")

    code, out, err = cli(
        "prune", "run", "--weights", "0.02", "--relus", "0.3", "--data", "train.npz", "--eps", "0.05",
        "--out", "pruned", "--evaluate", "--test", "test.npz", "--samples", "0:20", "--json",
    )  # fmt: skip
    assert code == 0, err
    result = json.loads(out)
    before, after = result["evaluation"]["before"], result["evaluation"]["after"]
    assert after["nonzero_weights"] < before["nonzero_weights"]
    assert sum(after["unstable"]) < sum(before["unstable"])
    assert sum(layer["zero"] + layer["linear"] for layer in result["relus"]["layers"].values()) > 0
    same_outputs(folder / "pruned")
    pruned = read_network(folder / "pruned").module

    code, out, err = cli(
        "finetune", "pruned", *TRAIN[1:], "--epochs", "1", "--out", "finer", "--evaluate", "--samples", "0:20"
    )
    assert code == 0, err
    assert "before" in out
    assert "after" in out
    finer = read_network(folder / "finer").module
    same_outputs(folder / "finer")
    assert any(isinstance(part, MaskedReLU) for part in finer.modules())
    moved = 0
    for a, b in zip(pruned.parameters(), finer.parameters(), strict=True):
        moved += int((a != b).sum())
        if a.ndim > 1:
            assert torch.all(b[a == 0] == 0)
    assert moved > 0


def test_finetuning_resumes(cli: Cli, folder: Path) -> None:
    assert cli(*TRAIN, "--out", "run", "-q")[0] == 0
    assert cli("prune", "run", "--weights", "0.01", "--out", "pruned", "-q")[0] == 0
    command = ["finetune", "pruned", *TRAIN[1:], "-q", "--out"]
    assert cli(*command, "whole")[0] == 0
    from mipverify.models.training import preset, read_images, train
    from mipverify.models.training.files import read_record
    from mipverify.models.training.options import options_from
    from mipverify.models.training.pruned import keep_zeros

    options = options_from(read_record(folder / "whole")["options"])
    assert options == preset("mnist-stable", **options.record() | {"ramp": (0.0, 0.0)})
    initial = read_network(folder / "pruned")
    keep_zeros(initial.module)

    def stop(progress) -> None:
        if progress.step == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(options, read_images("train.npz"), read_images("test.npz"), "parts", initial=initial, report=stop)
    assert cli(*command, "parts", "--resume")[0] == 0
    one, two = (read_record(folder / part) for part in ("whole", "parts"))
    assert one["weights_sha256"] == two["weights_sha256"]


def test_json_and_quiet(cli: Cli) -> None:
    code, out, err = cli(*TRAIN, "--epochs", "1", "--out", "a", "--json", "--quiet")
    assert (code, err) == (0, "")
    assert json.loads(out)["options"]["preset"] == "mnist-stable"
    code, out, err = cli(*TRAIN, "--epochs", "1", "--out", "b", "--quiet")
    assert (code, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], "--preset NAME and --data FILE"),
        ([*TRAIN, "--out", "run", "--preset", "mnist-best"], "mnist-certified"),
        ([*TRAIN, "--out", "run", "--eps", "-1"], "--eps must be a positive number, not '-1'"),
        ([*TRAIN, "--out", "run", "--eps", "1e400"], "--eps must be a positive number, not '1e400'"),
        ([*TRAIN, "--out", "run", "--eps", "tenth"], "--eps must be a finite number such as 0.1 or 8/255"),
        ([*TRAIN, "--out", "run", "--eps", "1.5"], "--eps must be above 0 and at most 1"),
        (["prune", "run", "--out", "p", "--weights", "0.1", "--eps", "1e400"], "--eps must be a positive number"),
        ([*TRAIN, "--out", "run", "--epochs", "0"], "--epochs"),
        ([*TRAIN, "--out", "run", "--learning-rate", "nan"], "--learning-rate"),
        ([*TRAIN, "--out", "run", "--bounds", "exact"], "improved_interval"),
        ([*TRAIN, "--out", "run", "--architecture", "vgg"], "rs_cnn"),
        ([*TRAIN, "--out", "run", "--batch-size", "5000"], "320 images"),
        ([*TRAIN, "--out", "run", "--data", "none.npz"], "none.npz"),
        ([*TRAIN, "--out", "train.npz"], "--out train.npz"),
        ([*TRAIN, "--out", "run", "--threads", "0"], "--threads"),
        ([*TRAIN, "--out", "run", "--images", "0"], "--images"),
        ([*TRAIN, "--out", "run", "--against", "nothing"], "nothing: no such file"),
        ([*TRAIN, "--out", "run", "--evaluate", "--samples", "30:50"], "40 samples"),
        (["prune", "run", "--out", "p"], "nothing to prune"),
        (["prune", "run", "--out", "p", "--relus", "0.1"], "--data FILE"),
        (["prune", "none", "--out", "p", "--weights", "0.1"], "none: no such file"),
        (["prune", "train.npz", "--out", "p", "--weights", "0.1"], "train.npz"),
        (["prune", "net.onnx", "--out", "p", "--weights", "0.1"], "ONNX cannot be trained"),
        (["finetune", "none", *TRAIN[1:], "--out", "f"], "none: no such file"),
    ],
)
def test_bad_input(cli: Cli, arguments: list[str], words: str) -> None:
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert words in err
