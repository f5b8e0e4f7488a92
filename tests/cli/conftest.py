"""Good files on disk, and a way to run the command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from mipverify.cli.main import main
from tests.cli.files import Result, network, vnnlib


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run the command line with these arguments in this process."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with good files: net.onnx, holds.vnnlib, violated.vnnlib, and images.npz (5 of 2x2, all class 0)."""
    onnx.save(network(), tmp_path / "net.onnx")
    (tmp_path / "holds.vnnlib").write_text(vnnlib())
    (tmp_path / "violated.vnnlib").write_text(vnnlib(claim="(>= Y_0 2.2)"))
    images = np.full((5, 2, 2), 128, np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.zeros(5, np.uint8))
    return tmp_path
