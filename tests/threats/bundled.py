"""The bundled network and its images, and what ONNX Runtime says of inputs."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import onnxruntime

import mipverify
from mipverify import Network
from mipverify.engine.threats.sample import Sample

ZOO = files("mipverify.models.zoo")
PATH = str(ZOO / "mnist_small_linf0.1.onnx")
DATA = str(ZOO / "mnist_100.npz")


@lru_cache
def network() -> Network:
    return mipverify.load(PATH)


def sample(index: int, **more: Any) -> Sample:
    data = mipverify.load_dataset(DATA).fit_to(network().input_shape)
    return Sample(data.image(index), data.label(index), other=data.image, **more)


def margins(images: np.ndarray, label: int) -> np.ndarray:
    """The label's score less the largest other one (N,), by ONNX Runtime, of flat images (N, 784)."""
    session = onnxruntime.InferenceSession(PATH, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: x.astype(np.float32).reshape(1, 1, 28, 28)})[0].reshape(-1) for x in images]
    scores = np.stack(rows)
    return np.asarray(scores[:, label] - np.delete(scores, label, axis=1).max(axis=1))
