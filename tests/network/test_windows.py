"""Windows of pooling and convolutions, all small cases: what ONNX Runtime computes, or a refusal."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mipverify.errors import InputError
from mipverify.network import load
from tests.network.graphs import Graph, runtime

MODES = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def _compared(cases: Iterable[tuple[Graph, str]], path: Path) -> tuple[int, int]:
    """How many cases equal ONNX Runtime, and how many are refused by us or by it; fails at one that differs."""
    equal = refused = 0
    for graph, output in cases:
        graph.save(path, output)
        x = graph.rng.normal(size=graph.shape).astype(np.float32)
        try:
            ours = load(path).forward(x[None])[0]
            theirs = runtime(path.read_bytes(), x)
        except InputError:
            refused += 1
        except Exception as error:  # noqa: BLE001  # ONNX Runtime has a class for each of its reasons
            assert "ONNXRuntimeError" in str(error)
            refused += 1
        else:
            equal += 1
            case = str(graph.nodes[-2:])
            assert ours.shape == theirs.shape, case
            np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=case)
    return equal, refused


def pools(operator: str, opset: int) -> Iterable[tuple[Graph, str]]:
    dilated = (1, 2) if operator == "MaxPool" or opset >= 19 else (1,)
    counted = (0, 1) if operator == "AveragePool" else (0,)
    # Between them, these two sizes leave every remainder by every stride.
    for n, k, s, ceil, d, mode in itertools.product((4, 5), (1, 2, 3), (1, 2, 3), (0, 1), dilated, MODES):
        for include, pads in itertools.product(
            counted, ((0, 0), (0, k - 1), (k - 1, 0)) if mode == "NOTSET" else ((),)
        ):
            options: dict[str, Any] = {"pads": pads} if pads else {}
            options |= {"count_include_pad": include} if include else {}
            options |= {"dilations": [d]} if d > 1 else {}
            g = Graph([1, 1, n], opset=opset)
            yield (
                g,
                g.node(
                    "Neg",
                    [g.node(operator, ["x"], kernel_shape=[k], strides=[s], auto_pad=mode, ceil_mode=ceil, **options)],
                ),
            )


@pytest.mark.parametrize("opset", [10, 19])
@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_pooling(operator: str, opset: int, tmp_path: Path) -> None:
    equal, refused = _compared(pools(operator, opset), tmp_path / "net.onnx")
    assert equal > 5 * refused


def transposed() -> Iterable[tuple[Graph, str]]:
    for n, k, s, d, extra, mode in itertools.product((1, 3), (1, 2, 3), (1, 2, 3), (1, 2), (0, 1), MODES):
        full = (n - 1) * s + d * (k - 1) + 1 + extra
        for more, pads in itertools.product((None, -2, -1, 0, 1), ((), (0, 1)) if mode == "NOTSET" else ((),)):
            if extra >= s or (more is not None and full + more < 1):
                continue
            options: dict[str, Any] = {"pads": pads} if pads else {}
            options |= {} if more is None else {"output_shape": [full + more]}
            g = Graph([1, 2, n], opset=13)
            inputs = ["x", g.random(2, 1, k)]
            yield (
                g,
                g.node(
                    "ConvTranspose",
                    inputs,
                    strides=[s],
                    dilations=[d],
                    output_padding=[extra],
                    auto_pad=mode,
                    **options,
                ),
            )


def test_transposed_convolution(tmp_path: Path) -> None:
    equal, refused = _compared(transposed(), tmp_path / "net.onnx")
    assert equal > 3 * refused


def convolutions() -> Iterable[tuple[Graph, str]]:
    for n, k, s, d, mode in itertools.product((3, 4, 6), (1, 2, 3), (1, 2, 3), (1, 2), MODES):
        g = Graph([1, 2, n], opset=13)
        yield g, g.node("Conv", ["x", g.random(2, 2, k)], strides=[s], dilations=[d], auto_pad=mode)


def test_convolution(tmp_path: Path) -> None:
    equal, refused = _compared(convolutions(), tmp_path / "net.onnx")
    assert equal > refused


def _wide() -> Iterable[tuple[Graph, str]]:
    """Between convolutions of 16 channels, for which ONNX Runtime has other kernels."""
    rng = np.random.default_rng(4)

    def many(count: int, low: int, high: int) -> list[int]:
        return [int(value) for value in rng.integers(low, high, size=count)]

    for _ in range(150):
        opset, operator = int(rng.choice([11, 18, 19, 22])), str(rng.choice(["MaxPool", "AveragePool"]))
        g = Graph([1, 16, *many(2, 5, 10)], opset=opset, seed=int(rng.integers(1000)))
        kernel = many(2, 1, 4)
        options: dict[str, Any] = {"kernel_shape": kernel, "ceil_mode": int(rng.integers(2))}
        options["strides"] = [int(rng.integers(1, size + 1)) for size in kernel]
        if rng.integers(2):
            options["auto_pad"] = str(rng.choice(MODES))
        else:
            options["pads"] = [int(rng.integers(0, size)) for size in (*kernel, *kernel)]
        if operator == "AveragePool":
            options["count_include_pad"] = int(rng.integers(2))
        if operator == "MaxPool" or opset >= 19:
            options["dilations"] = many(2, 1, 3)
        weights = g.constant(g.rng.normal(size=(16, 16, 1, 1)) / 4)
        h = g.node("Relu", [g.node("Conv", ["x", weights])])
        yield g, g.node("Conv", [g.node(operator, [h], **options), weights])


def test_pooling_of_many_channels(tmp_path: Path) -> None:
    equal, refused = _compared(_wide(), tmp_path / "net.onnx")
    assert equal > 5 * refused
