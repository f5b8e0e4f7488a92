"""NNet files: fully connected ReLU networks as text (K. Julian, M. Kochenderfer; ACAS Xu is published in it)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from mipverify.errors import InputError
from mipverify.network.formats.layers import Dense, Relu
from mipverify.network.formats.program import Program, Step
from mipverify.network.model_file import read_bytes

NORMALIZE = ("none", "inputs", "outputs", "both")
_LARGEST = 1_000_000  # units in a layer, beyond which a header is taken for damaged


@dataclass(frozen=True, eq=False)
class NNet:
    """What an NNet file holds (format: README of github.com/sisl/NNet).

    `weights`: (out, in) each, `biases`: (out,). A raw input x is meant to be clipped to [minima, maxima] and given to
    the layers as (x - means[:-1]) / ranges[:-1]; their result y means y * ranges[-1] + means[-1].
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    minima: np.ndarray
    maxima: np.ndarray
    means: np.ndarray
    ranges: np.ndarray

    def program(self, normalize: str) -> Program:
        """The layers, with the normalization of `inputs`, of `outputs` or of `both` folded into them, or `none`."""
        weights, biases = list(self.weights), list(self.biases)
        if normalize in ("inputs", "both"):
            biases[0] = biases[0] - weights[0] @ (self.means[:-1] / self.ranges[:-1])
            weights[0] = weights[0] / self.ranges[:-1]
        if normalize in ("outputs", "both"):
            weights[-1], biases[-1] = weights[-1] * self.ranges[-1], biases[-1] * self.ranges[-1] + self.means[-1]
        steps: list[Step] = []
        for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            steps += [Relu(f"relu{i}")] if i else []
            steps.append(Dense(f"layer{i + 1}", weight.T, bias))
        return Program((weights[0].shape[1],), tuple(steps))

    def evaluate(self, x: np.ndarray, normalize: str) -> np.ndarray:
        """x (N, inputs) in float64 -> (N, outputs), normalized step by step as the format describes."""
        if normalize in ("inputs", "both"):
            x = (x - self.means[:-1]) / self.ranges[:-1]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.maximum(x @ weight.T + bias, 0.0)
        y = x @ self.weights[-1].T + self.biases[-1]
        return y * self.ranges[-1] + self.means[-1] if normalize in ("outputs", "both") else y

    def samples(self, rng: np.random.Generator, count: int, normalize: str) -> np.ndarray:
        """`count` random inputs (count, inputs) inside the stated minima and maxima, in the scale the network takes."""
        # Some files state the largest numbers there are: none of these is an input that anybody means.
        ends = np.clip((np.stack([self.minima, self.maxima]) - self.means[:-1]) / self.ranges[:-1], -10.0, 10.0)
        x = rng.uniform(ends.min(axis=0), ends.max(axis=0), size=(count, len(self.minima)))
        return x * self.ranges[:-1] + self.means[:-1] if normalize in ("inputs", "both") else x


def read_nnet(path: str | Path) -> NNet:
    """The network in the file `path` (`.nnet` or `.nnet.gz`); raises InputError that names the line that is wrong."""
    try:
        text = read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not an NNet file: it is no text") from None
    lines = _Lines(str(path), text)
    header = lines.whole(None, "number of layers, inputs, outputs, largest layer")
    if len(header) < 3:
        raise lines.error("needs the number of layers, of inputs and of outputs")
    sizes = lines.whole(header[0] + 1, "layer sizes")
    if sizes[0] != header[1] or sizes[-1] != header[2]:
        raise lines.error(f"layer sizes go from {sizes[0]} to {sizes[-1]}, the header says {header[1]} to {header[2]}")
    lines.next("the unused flag")
    inputs = sizes[0]
    minima, maxima = lines.numbers(inputs, "minima of the inputs"), lines.numbers(inputs, "maxima of the inputs")
    if (minima > maxima).any():
        raise lines.error(f"the maximum of input {int((minima > maxima).argmax())} lies below its minimum")
    means = lines.numbers(inputs + 1, "means of the inputs and of the outputs")
    ranges = lines.numbers(inputs + 1, "ranges of the inputs and of the outputs")
    if (ranges == 0).any():
        raise lines.error(f"range {int((ranges == 0).argmax())} is zero")
    weights, biases = [], []
    for i, (before, after) in enumerate(pairwise(sizes), 1):
        weights.append(np.stack([lines.numbers(before, f"weights of unit {k} of layer {i}") for k in range(after)]))
        biases.append(np.array([lines.numbers(1, f"bias of unit {k} of layer {i}")[0] for k in range(after)]))
    lines.end()
    return NNet(tuple(weights), tuple(biases), minima, maxima, means, ranges)


class _Lines:
    """The lines of the file one by one, with the number of the current one for errors."""

    def __init__(self, path: str, text: str):
        self.path, self.number = path, 0
        self._rest: Iterator[tuple[int, str]] = iter(
            [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("//")]
        )

    def error(self, why: str) -> InputError:
        """What to raise about the current line."""
        return InputError(f"{self.path}: line {self.number}: {why}")

    def next(self, what: str) -> list[str]:
        """The entries of the next line that is no comment."""
        try:
            self.number, line = next(self._rest)
        except StopIteration:
            raise InputError(f"{self.path}: ends after line {self.number}, where the {what} should follow") from None
        return [entry.strip() for entry in line.strip().rstrip(",").split(",")]

    def whole(self, count: int | None, what: str) -> list[int]:
        """The next line as `count` sizes."""
        entries = self.next(what)
        try:
            values = [int(entry) for entry in entries]
        except ValueError:
            values = [0]
        if not all(1 <= value <= _LARGEST for value in values):
            raise self.error(f"{what}: whole numbers from 1 are needed")
        self._count(len(values), count, what)
        return values

    def numbers(self, count: int, what: str) -> np.ndarray:
        """The next line as `count` finite numbers, float64."""
        entries = self.next(what)
        self._count(len(entries), count, what)
        try:
            values = np.array([float(entry) for entry in entries])
        except ValueError:
            raise self.error(f"{what}: not all of them are numbers") from None
        if not np.isfinite(values).all():
            raise self.error(f"{what}: NaN or infinity")
        return values

    def end(self) -> None:
        """Refuse what follows the last bias."""
        self.number, _ = next(self._rest, (0, ""))
        if self.number:
            raise self.error("stands after the last bias: the layer sizes do not fit the file")

    def _count(self, found: int, wanted: int | None, what: str) -> None:
        if wanted is not None and found != wanted:
            raise self.error(f"{what}: {found} numbers instead of {wanted}")
