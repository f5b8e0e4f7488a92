"""`mipverify train`, `prune` and `finetune`, from files to files."""

from __future__ import annotations

import json
import re
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


OWN = """
from torch import nn

def net(shape, classes):
    return nn.Sequential(
        nn.Conv2d(shape[0], 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, classes)
    )

def fixed():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))

def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))

def misfit():
    return nn.Linear(3, 4)

def number():
    return 3
"""


@pytest.fixture(autouse=True)
def own(folder: Path) -> Path:
    """A file with architectures of the user's."""
    (folder / "own.py").write_text(OWN)
    return folder / "own.py"


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
    assert "eps 0.05, test images 0 to 19" in out
    assert "test accuracy, all 40" in out
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


@pytest.mark.parametrize("function", ["net", "fixed"])
def test_an_architecture_of_the_users(cli: Cli, folder: Path, function: str) -> None:
    """Without --test, images are held out; batch normalization trains; the run can be pruned and gone on with."""
    command = ["train", "--preset", "mnist-stable", "--data", "train.npz", "--eps", "0.05", "--batch-size", "32"]
    command += ["--learning-rate", "0.01", "--stability", "1e-4", "--architecture", f"own.py:{function}"]
    code, out, err = cli(*command, "--epochs", "5", "--out", "run", "--evaluate")
    assert code == 0, err
    assert "test images 0 to 31" in out
    record = json.loads((folder / "run" / "training.json").read_text())
    assert record["epochs"][-1]["test accuracy"] > 0.9
    assert record["training_images"] == 288
    assert record["test"].endswith("train.npz, from image 288")
    assert record["architecture"] == f"{folder / 'own.py'}:{function}"
    same_outputs(folder / "run")
    code, out, err = cli("prune", "run", "--weights", "0.05", "--out", "pruned")
    assert code == 0, err
    assert re.search(r"^layer \d: [\d,]+ weights removed, [\d,]+ of [\d,]+ are zero$", out, re.MULTILINE)
    code, out, err = cli("finetune", "pruned", *command[1:-2], "--epochs", "1", "--out", "finer")
    assert code == 0, err
    same_outputs(folder / "finer")


def test_training_begins_with_given_weights(cli: Cli, folder: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    torch.save({"state_dict": module.state_dict()}, folder / "weights.pt")
    command = [*TRAIN, "--architecture", "own.py:fixed", "--weights", "weights.pt", "--learning-rate", "1e-9"]
    code, _, err = cli(*command, "--epochs", "1", "--out", "run")
    assert code == 0, err
    for a, b in zip(read_network("run").module.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("step", [4, 25])
def test_an_interrupted_run_leaves_a_network(folder: Path, step: int) -> None:
    """In the first epoch as well as in the third."""
    from mipverify.models.training import preset, read_images, train

    options = preset("mnist-stable", eps=0.05, epochs=6, batch_size=32)

    def stop(progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(options, read_images(folder / "train.npz"), read_images(folder / "test.npz"), folder / "run", report=stop)
    same_outputs(folder / "run")


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
    assert options == preset("mnist-stable", **options.record() | {"ramp": (0.0, 0.0), "milestones": ()})
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
        (["train"], "--preset NAME and --data FILE and --out DIR"),
        (
            ["train", "--preset", "best", "--eps", "tenth", "--threads", "0", "--data", "none.npz", "--test", "no.npz"],
            "--out DIR must be given; --eps must be a finite number such as 0.1 or 8/255, not 'tenth'; preset 'best'",
        ),
        (["train", "--data", "none.npz", "--threads", "0"], "--threads must be at least 1, not 0; none.npz: "),
        ([*TRAIN, "--out", "run", "--epochs", "0", "--seed", "-1"], "not 0; --seed must be at least 0"),
        (["prune", "run", "--evaluate", "--eps", "tenth"], "nothing to prune: give --weights T or --relus F; --test"),
        (["finetune", "none", "--eps", "tenth"], "none: no such file; --eps"),
        ([*TRAIN, "--out", "run", "--architecture", "own.py:missing"], "own.py:missing: AttributeError"),
        ([*TRAIN, "--out", "run", "--architecture", "none.py:net"], "there is no file"),
        ([*TRAIN, "--out", "run", "--architecture", "own.py:narrow"], "[2, 2] for 2 images, not 4 logits each"),
        ([*TRAIN, "--out", "run", "--architecture", "own.py:misfit"], "does not take images of shape (1, 8, 8)"),
        ([*TRAIN, "--out", "run", "--architecture", "own.py:number"], "returns int, not a torch.nn.Module"),
        ([*TRAIN, "--out", "run", "--weights", "none.pt"], "none.pt"),
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
