"""A dense network of three hidden layers, 1,300 ReLUs: what bounds leave open costs most in such ones.

mipverify train --preset mnist-stable --architecture benchmarks/dense_network.py:build --data mnist_train.npz
    --test mnist_test.npz --eps 0.1 --out run
mipverify report run/network.onnx --data mnist_test.npz --eps 0.1 --samples 0:1000 --out report
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

WIDTHS = (500, 500, 300)


def build(shape: Sequence[int], classes: int) -> nn.Module:
    """The network for inputs of a shape."""
    sizes = (math.prod(shape), *WIDTHS)
    hidden = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], classes))
