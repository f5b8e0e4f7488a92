"""Networks as other tools store and evaluate them: writers of their files, and plain loops for their layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import scipy.io

Arrays = dict[str, np.ndarray]


def save_mat(path: Path, arrays: Arrays) -> Path:
    """A MATLAB file (version 5) with these arrays."""
    scipy.io.savemat(path, arrays)
    return path


def dense_arrays(rng: np.random.Generator, sizes: Sequence[int], names: Sequence[str]) -> Arrays:
    """Weights (in, out) and biases (1, out) of fully connected layers, as MIPVerify.jl reads them."""
    arrays: Arrays = {}
    for name, n, m in zip(names, sizes, sizes[1:], strict=False):
        arrays[f"{name}/weight"] = rng.normal(size=(n, m))
        arrays[f"{name}/bias"] = rng.normal(size=(1, m))
    return arrays


def dense(x: np.ndarray, arrays: Arrays, name: str) -> np.ndarray:
    """x (features,) through the layer `name`."""
    return np.array([x @ column for column in arrays[f"{name}/weight"].T]) + arrays[f"{name}/bias"].reshape(-1)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: tuple[int, int], pad: str | tuple) -> np.ndarray:
    """x (H, W, C) with filters (h, w, in, out), one product at a time, by the definition of conv2d in MIPVerify.jl."""
    (height, width, _), (kh, kw, _, outputs) = x.shape, weight.shape
    if pad == "same":
        rows, columns = -(-height // stride[0]), -(-width // stride[1])
        top = max((rows - 1) * stride[0] + kh - height, 0) // 2
        left = max((columns - 1) * stride[1] + kw - width, 0) // 2
    else:
        top, bottom, left, right = (0, 0, 0, 0) if pad == "valid" else pad
        rows = (height + top + bottom - kh) // stride[0] + 1
        columns = (width + left + right - kw) // stride[1] + 1
    y = np.empty((rows, columns, outputs))
    for i, j, o in np.ndindex(*y.shape):
        total = bias.reshape(-1)[o]
        for a, b in np.ndindex(kh, kw):
            r, c = i * stride[0] + a - top, j * stride[1] + b - left
            if 0 <= r < height and 0 <= c < width:
                total += x[r, c] @ weight[a, b, :, o]
        y[i, j, o] = total
    return y


def pool(x: np.ndarray, stride: int, kind: str) -> np.ndarray:
    """x (H, W, C) in blocks of `stride`, those at the end cut off, as Pool of MIPVerify.jl."""
    height, width, _ = x.shape
    rows = []
    for i in range(0, height, stride):
        blocks = [x[i : i + stride, j : j + stride].reshape(-1, x.shape[2]) for j in range(0, width, stride)]
        rows.append([block.max(axis=0) if kind == "max" else block.mean(axis=0) for block in blocks])
    return np.array(rows)


def outputs(path: Path, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime computes with the file for a batch x (N, ...) -> (N, outputs)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.astype(np.float32)})
    return np.asarray(y).reshape(len(x), -1)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal up to the rounding of float32."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * max(1.0, float(np.abs(expected).max())))


def nnet_text(
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray],
    ends: tuple[np.ndarray, np.ndarray],
    means: np.ndarray,
    ranges: np.ndarray,
) -> str:
    """An NNet file: weights (out, in), `ends` the minima and maxima of the inputs."""
    sizes = [weights[0].shape[1], *(len(bias) for bias in biases)]
    lines = ["// Neural Network File Format", "// by hand"]
    lines += [f"{len(weights)},{sizes[0]},{sizes[-1]},{max(sizes)},", ",".join(map(str, sizes)) + ",", "0,"]
    rows = [*ends, means, ranges]
    for weight, bias in zip(weights, biases, strict=True):
        rows += [*weight, *bias.reshape(-1, 1)]
    lines += [",".join(f"{value:.17g}" for value in row) + "," for row in rows]
    return "\n".join(lines) + "\n"


def random_nnet(rng: np.random.Generator, sizes: Sequence[int]) -> tuple[list, list, tuple, np.ndarray, np.ndarray]:
    """What `nnet_text` takes, at random."""
    weights = [rng.normal(size=(m, n)) for n, m in pairwise(sizes)]
    biases = [rng.normal(size=m) for m in sizes[1:]]
    low = rng.uniform(-50, 0, size=sizes[0])
    ends = (low, low + rng.uniform(1, 100, size=sizes[0]))
    return weights, biases, ends, rng.uniform(-10, 10, size=sizes[0] + 1), rng.uniform(1, 300, size=sizes[0] + 1)
