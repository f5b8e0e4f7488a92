"""Where the windows of a convolution or pooling lie: TensorFlow's `same`, `valid`, margins, or cut at the edge."""

from __future__ import annotations

from math import ceil

import numpy as np

Pair = tuple[int, int]  # vertical, horizontal
Margins = tuple[Pair, Pair]  # (top, bottom), (left, right)
Padding = str | Margins


def margins(padding: Padding, size: Pair, kernel: Pair, stride: Pair) -> Margins:
    """Cells to add around an image of `size` so that plain windows give what `padding` asks for.

    `same`: ceil(size / stride) windows, the odd cell at the end (tf.nn.conv2d). `valid`: whole windows only. `cut`:
    windows start at multiples of the stride and lose what lies beyond the end (Pool of MIPVerify.jl).
    """
    if not isinstance(padding, str):
        return padding
    vertical, horizontal = (_along(padding, n, k, s) for n, k, s in zip(size, kernel, stride, strict=True))
    return vertical, horizontal


def _along(padding: str, n: int, k: int, s: int) -> Pair:
    if padding == "valid":
        return 0, 0
    if padding == "same":
        total = max((ceil(n / s) - 1) * s + k - n, 0)
        return total // 2, total - total // 2
    count = max(ceil((n - k) / s), 0) + 1
    count = min(count, ceil(n / s))  # where the stride exceeds the window, the last one may lie outside
    return 0, max((count - 1) * s + k - n, 0)


def counts(size: Pair, kernel: Pair, stride: Pair, around: Margins) -> Pair:
    """How many windows there are along each axis; 0 where none fits."""
    vertical, horizontal = (
        max((n + sum(m) - k) // s + 1, 0) for n, k, s, m in zip(size, kernel, stride, around, strict=True)
    )
    return vertical, horizontal


def gather(x: np.ndarray, kernel: Pair, stride: Pair, around: Margins, fill: float) -> np.ndarray:
    """All windows of images x (N, H, W, C), margins filled with `fill` -> (N, rows, columns, C, *kernel)."""
    padded = np.pad(x, ((0, 0), *around, (0, 0)), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(1, 2))[:, :: stride[0], :: stride[1]]
