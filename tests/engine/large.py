"""A network of the size that CIFAR-10 is classified with, of random weights, and a question that nothing decides."""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np
from mipverify.presolve import crown, interval

from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.convolution import Conv
from mipverify.network.operators import Dense
from mipverify.proof.backward import row_minimum
from mipverify.proof.rows import functionals
from mipverify.specification import Specification
from tests.soundness.nets import question

LAYERS = ((32, 1), (32, 2), (64, 1), (64, 2))  # channels and stride of each convolution


def cifar() -> Network:
    """Four convolutions and a dense layer: 61,696 ReLUs."""
    rng = np.random.default_rng(0)
    nodes: list = [Input((1, 3, 32, 32))]

    def append(operator: Conv | Dense, shape: tuple[int, ...]) -> None:
        bias = np.full(shape, 0.01, np.float32)
        nodes.append(Affine(shape, (Term(len(nodes) - 1, operator),), bias))

    for channels, stride in LAYERS:
        before = nodes[-1].shape
        weight = rng.normal(size=(channels, before[1], 3, 3)) * np.sqrt(2 / (9 * before[1]))
        conv = Conv(weight.astype(np.float32), before[2:], (stride, stride), (1, 1, 1, 1))
        append(conv, conv.out_shape)
        nodes.append(Relu(conv.out_shape, len(nodes) - 1))
    for width in (256, 10):
        size = int(np.prod(nodes[-1].shape))
        append(Dense((rng.normal(size=(width, size)) * np.sqrt(2 / size)).astype(np.float32)), (1, width))
        if width > 10:
            nodes.append(Relu((1, width), len(nodes) - 1))
    return Network(tuple(nodes), len(nodes) - 1)


def undecided(network: Network, radius: float, *, share: float | None = None) -> Specification:
    """Three conditions that no point meets, as far as anyone knows, and that bounds do not exclude.

    share: how far from CROWN's bound of a margin to the least that points have its zero lies; by default it lies well
    below what points have.
    """
    center = np.full(network.input_size, 0.5)
    low, high = center - radius, center + radius
    corners = low + np.random.default_rng(0).random((50, network.input_size)).round() * (high - low)
    outputs = network.forward(corners.reshape(-1, *network.input_shape)).reshape(len(corners), -1)
    rows = np.zeros((3, outputs.shape[1]))
    rows[:, 0], rows[np.arange(3), np.arange(1, 4)] = 1, -1
    least = (outputs @ rows.T).min(axis=0)
    zero = least - 2.0 * (1 + np.abs(least))
    if share is not None:
        box = low.reshape(1, *network.input_shape), high.reshape(1, *network.input_shape)
        start = functionals({network.output: rows.reshape(3, *network.output_shape)})
        bound = row_minimum(crown(interval(network, *box)), start).lower
        zero = bound + share * (least - bound)
    return question(low, high, [[(row.tolist(), float(at))] for row, at in zip(rows, zero, strict=True)])


def peak() -> int:
    """The most bytes that this program had; on Linux `ru_maxrss` also knows what its parent had when it was started."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1])  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """What the question takes: the reason of its end, seconds, and bytes at the peak."""
    from mipverify.engine import verify

    network, timeout = cifar(), float(sys.argv[1])
    asked = undecided(network, 0.02)
    begin = time.perf_counter()
    verdict = verify(network, asked, timeout=timeout)
    print(json.dumps([verdict.verdict, verdict.reason, verdict.stage, time.perf_counter() - begin, peak()]))


if __name__ == "__main__":
    main()
