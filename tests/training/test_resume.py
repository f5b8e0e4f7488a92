"""A training that was killed continues to the weights of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mipverify.models.training import Images, Trained, preset, read_network, train
from mipverify.models.training.files import CHECKPOINT, read_record, read_tensors

from mipverify.cli.main import main
from mipverify.errors import InputError

OPTIONS = {"epochs": 4, "batch_size": 32, "architecture": "rs_cnn"}


class StopError(Exception):
    """Stands for a kill between two steps."""


def stop_at(step: int):
    def report(progress) -> None:
        if progress.step == step and not progress.finished:
            raise StopError

    return report


def same(a: Trained, b: Trained) -> bool:
    one, two = a.module.state_dict(), b.module.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", ["mnist-adversarial", "mnist-stable", "mnist-certified", "cifar10-sparse"])
def test_same_weights(name: str, data: tuple[Images, Images], tmp_path: Path) -> None:
    options = preset(name, **OPTIONS)
    whole = train(options, *data, tmp_path / "whole")
    one = read_record(tmp_path / "whole")
    for step in (3, 10, 27):
        parts = tmp_path / str(step)
        with pytest.raises(StopError):
            train(options, *data, parts, report=stop_at(step))
        torch.rand(7)  # random numbers of somebody else
        resumed = train(options, *data, parts, resume=True)
        assert same(whole, resumed)
        assert same(read_network(parts), whole)
        two = read_record(parts)
        assert one["weights_sha256"] == two["weights_sha256"]
        for a, b in zip(one["epochs"], two["epochs"], strict=True):
            assert a | {"seconds": 0} == b | {"seconds": 0}


def test_sigkill(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    command = [
        "train", "--preset", "mnist-stable", "--data", "train.npz", "--test", "test.npz", "--eps", "0.05",
        "--epochs", "8", "--batch-size", "32", "--threads", "1", "--quiet", "--out",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen([sys.executable, "-m", "mipverify", *command, "killed"], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not Path("killed", CHECKPOINT).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert killed.poll() is None, "finished before it could be killed"
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert 0 < read_tensors(Path("killed", CHECKPOINT))["epochs"] < 8
    assert main([*command, "killed", "--resume"]) == 0
    assert main([*command, "whole"]) == 0
    assert same(read_network("killed"), read_network("whole"))


def test_the_users_random_numbers_are_left_alone(data: tuple[Images, Images], tmp_path: Path) -> None:
    state = torch.get_rng_state()
    train(preset("mnist-adversarial", **(OPTIONS | {"epochs": 1})), *data, tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_is_not_overwritten(data: tuple[Images, Images], tmp_path: Path) -> None:
    options = preset("mnist-adversarial", **(OPTIONS | {"epochs": 1}))
    train(options, *data, tmp_path / "run")
    with pytest.raises(InputError, match="--resume"):
        train(options, *data, tmp_path / "run")
    for change, word in ({"eps": 0.2}, "eps"), ({"seed": 1}, "seed"):
        with pytest.raises(InputError, match=f"another {word}"):
            train(
                preset("mnist-adversarial", **(OPTIONS | {"epochs": 1} | change)), *data, tmp_path / "run", resume=True
            )
    with pytest.raises(InputError, match="training_images"):
        train(options, data[0].first(64), data[1], tmp_path / "run", resume=True)
    before = read_record(tmp_path / "run")
    train(options, *data, tmp_path / "run", resume=True)  # nothing is left to do
    assert read_record(tmp_path / "run")["weights_sha256"] == before["weights_sha256"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x80\x04."])
def test_damaged_checkpoint(content: bytes, data: tuple[Images, Images], tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(InputError, match="checkpoint"):
        train(preset("mnist-adversarial", **OPTIONS), *data, tmp_path, resume=True)


def test_a_foreign_checkpoint(data: tuple[Images, Images], tmp_path: Path) -> None:
    torch.save({"weights": {}}, tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match="not a checkpoint"):
        train(preset("mnist-adversarial", **OPTIONS), *data, tmp_path, resume=True)
