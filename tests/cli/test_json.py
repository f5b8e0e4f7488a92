"""`--json`: one object on stdout, and nothing else there, whoever prints."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import mipverify
import mipverify.engine
from mipverify.engine import Verdict
from tests.cli.files import Result


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_holds(cli: Callable[..., Result], folder: Path) -> None:
    result = cli("verify", folder / "net.onnx", folder / "holds.vnnlib", "--json")
    assert result.out.count("\n") == 1
    record = json.loads(result.out)
    assert record["verdict"] == "holds"
    assert record["witness"] is None
    assert record["margin_lower_bound"] > 0
    assert record["trusted"] == []
    assert record["network"] == {"path": str(folder / "net.onnx"), "sha256": digest(folder / "net.onnx")}
    assert record["property"] == {"path": str(folder / "holds.vnnlib"), "sha256": digest(folder / "holds.vnnlib")}
    assert record["version"] == mipverify.__version__
    assert {"seconds", "stage", "statistics"} <= set(record)


def test_the_witness_replays(cli: Callable[..., Result], folder: Path) -> None:
    record = json.loads(cli("verify", folder / "net.onnx", folder / "violated.vnnlib", "--json").out)
    assert record["verdict"] == "violated"
    x = np.array(record["witness"]["input"])
    assert (x.astype(np.float32) == x).all()
    assert x.min() >= 0.4
    assert x.max() <= 0.6
    session = onnxruntime.InferenceSession(folder / "net.onnx")
    (y,) = session.run(None, {"image": x.astype(np.float32)[None]})
    assert y[0].tolist() == record["witness"]["output"]
    assert y[0, 0] >= 2.2


def test_the_question_about_an_image_is_recorded(cli: Callable[..., Result], folder: Path) -> None:
    data = folder / "images.npz"
    result = cli(
        "verify", folder / "net.onnx", "--data", data, "--index", 2, "--eps", "0.010", "--targets", "1,2", "--json"
    )
    assert json.loads(result.out)["property"] == {
        "path": str(data),
        "sha256": digest(data),
        "index": 2,
        "label": 0,
        "eps": "0.010",
        "norm": "linf",
        "targets": [1, 2],
        "domain": "0,1",
        "scale": "1/255",
        "mean": ["0"],
        "std": ["1"],
        "layout": None,
    }


def test_noise_goes_to_stderr(cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def engine(*_: Any, **__: Any) -> Verdict:
        print("from Python")
        os.write(1, b"from native code\n")
        return Verdict("holds", 0.1, "crown")

    monkeypatch.setattr(mipverify.engine, "verify", engine)
    result = cli("verify", folder / "net.onnx", folder / "holds.vnnlib", "--json")
    assert json.loads(result.out)["verdict"] == "holds"
    assert "from Python" in result.err
    assert "from native code" in result.err


def test_no_number_that_is_not_json(cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mipverify.engine, "verify", lambda *_, **__: Verdict("unknown", 1.0, "interval", float("-inf")))
    result = cli("verify", folder / "net.onnx", folder / "holds.vnnlib", "--json")
    assert json.loads(result.out)["margin_lower_bound"] is None
