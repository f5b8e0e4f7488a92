"""Projected gradient descent on margins, for many restarts, conditions and boxes in one batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mipverify.attack.gradient import values_and_gradient
from mipverify.network import Network

STEP_WORK = 2**29  # multiplications of one step of all walks, one way
STEP_BYTES = 2**27  # of node values


@dataclass(frozen=True)
class Attack:
    """restarts: starting points a condition. steps: gradient steps of each. step: first step, in box widths."""

    restarts: int = 4
    steps: int = 20
    step: float = 0.25


Accept = Callable[[np.ndarray, np.ndarray], bool]
Project = Callable[[np.ndarray], np.ndarray]


def descend(
    network: Network,
    x: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    rows: np.ndarray,
    settings: Attack,
    accept: Accept,
    stop: Callable[[], bool] = lambda: False,
    project: Project | None = None,
) -> None:
    """Lower `rows[r] @ output` from the points x (R, n) inside the float32 boxes lower, upper (R or 1, n).

    accept: called with indices (H,) of walks and their points (H, n) wherever that is not positive; returns whether to
    end [Madry et al. 2018]. Every other walk follows the sign of the gradient, the rest its direction with momentum:
    narrow and wide boxes give way to different rules.
    """
    width = upper - lower
    by_sign = (np.arange(len(x)) % 2 == 0)[:, None]
    momentum = np.zeros_like(x)
    for step in range(settings.steps + 1):
        values, gradient = values_and_gradient(network, x.reshape(len(x), *network.input_shape), rows)
        margin = np.einsum("ri,ri->r", values, rows.astype(values.dtype, copy=False))
        hits = np.flatnonzero(margin <= 0)
        if len(hits) and accept(hits[np.argsort(margin[hits])], x[hits[np.argsort(margin[hits])]]):
            return
        if step == settings.steps or stop():
            return
        gradient = gradient.reshape(len(x), -1)
        scaled = gradient * width
        scaled /= np.abs(scaled).max(axis=1, keepdims=True) + 1e-30
        momentum = 0.75 * momentum + scaled
        peak = np.abs(momentum).max(axis=1, keepdims=True) + 1e-30
        direction = np.where(by_sign, np.sign(gradient), momentum / peak)
        size = settings.step * 0.5 * (1 + np.cos(np.pi * step / settings.steps)) + 0.01
        x = np.clip(x - np.float32(size) * width * direction, lower, upper).astype(np.float32)
        if project is not None:
            x = project(x)


def pgd(
    margins: Network,
    lower: np.ndarray,
    upper: np.ndarray,
    conditions: np.ndarray,
    settings: Attack,
    rng: np.random.Generator,
    try_points: Callable[[np.ndarray], object | None],
    hints: np.ndarray | None = None,
    stop: Callable[[], bool] = lambda: False,
    project: Project | None = None,
) -> object | None:
    """Search the float32 box (n,) for a point where one of the outputs `conditions` is not positive.

    project: moves points of the box into the set that is asked about, if that is smaller.
    hints: points (H, n) to start from besides the middle and random ones. try_points: shown promising points (R, n);
    what it returns other than None ends the search and is returned.
    """
    starts = rng.random((settings.restarts, len(lower)), dtype=np.float32)
    starts[0] = 0.5
    starts = lower + starts * (upper - lower)
    if hints is not None and len(hints):
        starts = np.concatenate([starts, hints.astype(np.float32)])
    found: list[object] = []

    def accept(walks: np.ndarray, points: np.ndarray) -> bool:
        witness = try_points(points[:8])
        if witness is not None:
            found.append(witness)
        return bool(found)

    size = max(1, walks_at_once(margins) // len(starts))
    for begin in range(0, len(conditions), size):
        if begin and (found or stop()):
            break
        some = conditions[begin : begin + size]
        x = np.clip(np.tile(starts, (len(some), 1)), lower, upper).astype(np.float32)
        x = x if project is None else project(x)
        rows = np.zeros((len(x), margins.output_size), np.float32)
        rows[np.arange(len(x)), np.repeat(some, len(starts))] = 1
        descend(margins, x, lower[None], upper[None], rows, settings, accept, stop, project)
    return found[0] if found else None


def walks_at_once(network: Network) -> int:
    """How many walks take a step together, for the time that it takes and for the memory of all node values."""
    entries = sum(math.prod(node.shape) for node in network.nodes)
    return max(1, min(STEP_WORK // network.work[-1], STEP_BYTES // (4 * entries)))


def attack_work(network: Network, conditions: int, settings: Attack) -> int:
    """Multiplications of an attack on so many conditions, about: each step goes forward and back."""
    return 2 * (settings.steps + 1) * settings.restarts * conditions * network.work[-1]
