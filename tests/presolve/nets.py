"""Random networks for the tests of bounds: dense, convolutional, with skips."""

from __future__ import annotations

import itertools

import numpy as np

from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.convolution import Conv
from mipverify.network.operators import Dense, Identity


def dense(rng: np.random.Generator, widths: tuple[int, ...] = (5, 12, 9, 4), skip: bool = False) -> Network:
    """A dense network; with `skip`, hidden layers of equal width add their input."""
    nodes: list = [Input((widths[0],))]
    for depth, (before, after) in enumerate(itertools.pairwise(widths)):
        source = len(nodes) - 1
        weight = rng.normal(size=(after, before)).astype(np.float32)
        nodes.append(Affine((after,), (Term(source, Dense(weight)),), rng.normal(size=after).astype(np.float32)))
        if depth < len(widths) - 2:
            nodes.append(Relu((after,), len(nodes) - 1))
            if skip and before == after:
                same = Identity((after,))
                nodes.append(Affine((after,), (Term(len(nodes) - 1, same), Term(source, same))))
    return Network(tuple(nodes), len(nodes) - 1)


def branches(rng: np.random.Generator, width: int = 8) -> Network:
    """Two branches from the input to a common output, each with two layers of ReLUs behind a layer without one."""
    nodes: list = [Input((4,))]
    ends = []
    for _ in range(2):
        source = 0
        for rectified in (False, True, True):
            before = nodes[source].shape[0]
            weight = rng.normal(size=(width, before)).astype(np.float32)
            nodes.append(Affine((width,), (Term(source, Dense(weight)),), rng.normal(size=width).astype(np.float32)))
            if rectified:
                nodes.append(Relu((width,), len(nodes) - 1))
            source = len(nodes) - 1
        ends.append(Term(source, Dense(rng.normal(size=(3, width)).astype(np.float32))))
    nodes.append(Affine((3,), tuple(ends)))
    return Network(tuple(nodes), len(nodes) - 1)


def convolutional(rng: np.random.Generator, size: int = 9) -> Network:
    """Three convolutions with strides, pads and dilations, then a dense layer."""
    nodes: list = [Input((1, 2, size, size + 1))]
    for channels, kernel, stride, pads, dilation in (
        (3, (3, 2), (1, 2), (1, 0, 0, 1), (1, 1)),
        (4, (2, 3), (2, 1), (0, 1, 1, 2), (1, 1)),
        (3, (2, 2), (1, 1), (1, 1, 0, 0), (2, 1)),
    ):
        shape = nodes[-1].shape
        weight = rng.normal(size=(channels, shape[1], *kernel)).astype(np.float32)
        conv = Conv(weight, shape[2:], stride, pads, (dilation[0], dilation[1]))
        bias = np.broadcast_to(rng.normal(size=(1, channels, 1, 1)).astype(np.float32), conv.out_shape)
        nodes.append(Affine(conv.out_shape, (Term(len(nodes) - 1, conv),), bias))
        nodes.append(Relu(conv.out_shape, len(nodes) - 1))
    width = int(np.prod(nodes[-1].shape))
    nodes.append(Affine((3,), (Term(len(nodes) - 1, Dense(rng.normal(size=(3, width)).astype(np.float32))),)))
    return Network(tuple(nodes), len(nodes) - 1)


def boxes(rng: np.random.Generator, network: Network, count: int = 3, radius: float = 0.2) -> tuple:
    """Random boxes (count, *input_shape) in float64, of different sizes."""
    center = rng.normal(size=(count, *network.input_shape))
    growing = np.arange(1, count + 1).reshape(-1, *[1] * (center.ndim - 1))
    reach = radius * growing * rng.random((count, *network.input_shape))
    return center - reach, center + reach


def points(rng: np.random.Generator, lower: np.ndarray, upper: np.ndarray, count: int = 400) -> np.ndarray:
    """Points of each box (count, B, *input_shape): inner ones, corners and points on faces."""
    share = rng.random((count, *lower.shape))
    share = np.where(rng.random((count, *[1] * lower.ndim)) < 0.5, np.round(share), share)
    return np.clip(lower + share * (upper - lower), lower, upper)
