"""The models that come with onnx and onnxruntime: read right, or refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from mipverify.errors import InputError
from mipverify.network import load
from tests.network.graphs import runtime

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
DATASETS = Path(onnxruntime.__file__).parent / "datasets"
READ = {"light_squeezenet", "light_shufflenet", "mul_1"}  # the others that are read end in a softmax or are larger
MODELS = sorted([*LIGHT.glob("*.onnx"), *DATASETS.glob("*.onnx")])


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_models_of_the_wheels(path: Path) -> None:
    if path.stem not in READ:
        try:
            load(path)
        except InputError as error:
            assert "\n" not in str(error)
        return
    network = load(path)
    x = np.random.default_rng(0).normal(size=network.input_shape).astype(np.float32)
    ours, theirs = network.forward(x[None])[0], runtime(path.read_bytes(), x)
    if network.order_only:
        assert ours.argmax() == theirs.argmax()
    else:
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
