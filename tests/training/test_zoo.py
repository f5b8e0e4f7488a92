"""Every network that comes with the package can be loaded, and what is claimed of it holds."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import mipverify

ZOO = Path(str(files("mipverify.models.zoo")))
NETWORKS = sorted(ZOO.glob("*.onnx"))

# Of the first hundred test images, by the report that its row in the zoo's README is from.
ATTACKABLE = {
    "mnist_certified_linf0.1": [18, 33, 65],
    "mnist_stable_linf0.1": [8, 18, 62, 65, 92],
    "mnist_certified_linf0.3": [8, 73, 78, 95],
    "mnist_stable_linf0.2": [8, 18, 33, 62, 65],
    "mnist_stable_linf0.3": [8, 18, 24, 33, 61],
}


def radius(path: Path) -> str:
    """The radius that a network's name says it was trained for."""
    found = re.search(r"linf(0\.\d+)", path.name)
    assert found, f"{path.name} says no radius"
    return found[1]


def test_there_are_networks() -> None:
    assert len(NETWORKS) >= 1
    listed = (ZOO / "README.md").read_text()
    assert [path.name for path in NETWORKS if path.name not in listed] == []


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_network(path: Path) -> None:
    assert path.stat().st_size < 1_000_000
    network = mipverify.load(path)
    data = mipverify.load_dataset(ZOO / "mnist_100.npz").fit_to(network.input_shape)
    logits = network.forward(data.images.astype(np.float64)).reshape(100, -1)
    right = np.flatnonzero(logits.argmax(1) == data.labels)
    assert len(right) >= 97
    own = logits[right, data.labels[right]]
    others = np.sort(logits[right], axis=1)[:, -2]
    clearest = int(right[(own - others).argmax()])
    property_ = mipverify.robustness(
        data.image(clearest), data.label(clearest), radius(path), num_classes=network.output_size
    )
    assert mipverify.verify(network, property_, timeout=60).verdict == "holds"


@pytest.mark.parametrize("name", ATTACKABLE)
def test_verdicts_of_the_report(name: str) -> None:
    path = ZOO / f"{name}.onnx"
    network = mipverify.load(path)
    data = mipverify.load_dataset(ZOO / "mnist_100.npz").fit_to(network.input_shape)
    verdicts = {}
    for index in (0, 1, 2, *ATTACKABLE[name]):
        property_ = mipverify.robustness(
            data.image(index), data.label(index), radius(path), num_classes=network.output_size
        )
        verdicts[index] = mipverify.verify(network, property_, timeout=60).verdict
    assert verdicts == {0: "holds", 1: "holds", 2: "holds"} | dict.fromkeys(ATTACKABLE[name], "violated")
