"""Bounds are sent to other processes, whatever has been asked of them before."""

from __future__ import annotations

import pickle

import numpy as np
from mipverify.presolve import crown

from mipverify.proof.interval import interval
from tests.presolve.nets import dense


def test_bounds_that_were_used_can_be_sent() -> None:
    network = dense(np.random.default_rng(0))
    low = np.zeros((1, *network.input_shape))
    bounds = crown(interval(network, low, low + 1))
    nodes = range(len(network.nodes))
    used = [float(bounds.magnitudes[node].sum() + bounds.underflow[node].sum()) for node in nodes]
    slopes = [bounds.lines[node] for node in network.relus]
    sent = pickle.loads(pickle.dumps(bounds))
    assert all(np.array_equal(a, b) for a, b in zip(sent.lower, bounds.lower, strict=True))
    assert [float(sent.magnitudes[node].sum() + sent.underflow[node].sum()) for node in nodes] == used
    assert len(slopes) == len(sent.lines)
