"""Whether what was read is what runs: a network against its original, at points, within what rounding explains.

A wrong rewrite, an operator that the runtime understands differently and a random layer all become a refusal, before
anything is proven of a network that nobody runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mipverify.errors import InputError
from mipverify.network.compose import ComposedModel
from mipverify.network.graph import Network
from mipverify.network.inner_tensors import compare_tensors, replay_of_tensors
from mipverify.network.replay import ModuleReplay, OnnxRuntimeReplay, Replay, replay_of
from mipverify.network.rounding_error import error_bounds, unit_roundoff
from mipverify.network.snapshot import snapshot

MOST_ENTRIES = 2**24  # of all nodes together at all points: larger networks are compared at fewer points
BEYOND = (2.0, 0.5, 16.0)  # scales of points outside of the input set, which turn the signs of hidden units


def validated(network: Network, points: np.ndarray, seed: int = 0) -> Replay:
    """The original of `network`, after comparing both at float32 points (P, n) and at random ones around them.

    Raises InputError that names the first tensor that differs, or says why the original cannot be run.
    """
    original = replay_of(network)
    validate(network, original, points, seed)
    return original


class Original:
    """The original of a network, held open: compared with it at the points of one question after the other."""

    def __init__(self, network: Network):
        self.network, self.replay = network, replay_of(network)
        self._inner: OnnxRuntimeReplay | None = None

    def compare(self, points: np.ndarray, seed: int = 0) -> None:
        """As `validated`."""
        self._inner = self._inner or replay_of_tensors(self.network)
        validate(self.network, self.replay, points, seed, self._inner)

    @property
    def at_once(self) -> int:
        """How many points are compared at most; of more, the first ones."""
        return most_points(self.network)


def most_points(network: Network) -> int:
    """At how many points a network is compared with its original at once."""
    return max(1, MOST_ENTRIES // sum(math.prod(node.shape) for node in network.nodes) // 2)


def validate(
    network: Network, original: Replay, points: np.ndarray, seed: int = 0, inner: OnnxRuntimeReplay | None = None
) -> None:
    """The same for an original that is at hand. inner: and for its inner tensors, as `replay_of_tensors` gives it."""
    network = snapshot(network)
    points = np.asarray(points, dtype=np.float32).reshape(len(points), -1)
    if network.parameters is not None:
        whole = network.parameters.original
        validate(whole, replay_of(whole), network.parameters.inputs(points), seed)
        return
    if network.pair is not None:
        for part in network.pair:
            validate(part, replay_of(part), points, seed)
        _compare_with_parts(network, network.pair, points)
        return
    if _is_its_own_original(network):
        return
    if isinstance(original, OnnxRuntimeReplay):
        _check_shape(network, original, points[0])
    outputs = original.run(points)
    if not np.isfinite(outputs).all():
        raise InputError(f"{_name(network)}: its output at an input of the set is NaN or infinite")
    _check_repetition(network, original, points[0], outputs[0])
    around = _around(points, np.random.default_rng(seed))
    if isinstance(network.file, ComposedModel) and network.file.within is not None:
        network.file.require_within(points.min(axis=0), points.max(axis=0))
        low, high = network.file.within
        around = np.clip(around, low, high).astype(np.float32)
        around = around[((low <= around) & (around <= high)).all(axis=1)]
    each = most_points(network)
    points, outputs, around = points[:each], outputs[:each], around[:each]
    compare_tensors(network, points, around, inner)
    compare(network, points, outputs)
    compare(network, around, original.run(around))
    if isinstance(original, ModuleReplay) and not network.double:
        _compare_in_double(network, original, np.concatenate([points, around]))


def _compare_with_parts(network: Network, parts: tuple[Network, Network], points: np.ndarray) -> None:
    """Compare a network with the two that it is made of, all in float64. Raises RuntimeError where they differ."""

    def computed(part: Network) -> tuple[np.ndarray, np.ndarray]:
        values = part.values(points.astype(np.float64).reshape(len(points), *part.input_shape))
        errors = error_bounds(part, values, True)[part.output]
        return values[part.output].reshape(len(points), -1), np.asarray(errors, np.float64).reshape(1, -1)

    own, error = computed(network)
    (one, first), (two, second) = (computed(part) for part in parts)
    apart = np.abs(own - np.concatenate([one, two], axis=1))
    if not (apart <= error + np.concatenate([first, second], axis=1)).all():
        raise RuntimeError(f"{_name(network)}: the network of both is not what they are")


def _compare_in_double(network: Network, original: ModuleReplay, points: np.ndarray) -> None:
    """Compare with a copy of the module in float64, where little rounding hides what is wrong.

    What a float32 module's code has of numbers, or computes of its parameters, is rounded to float32 in the module, not
    in the copy. So the copy is compared with a reading of its own, and `network` with what the module is read as now.
    Where some of a module computes in float64, nobody knows which numbers are rounded: none must make a difference.
    """
    from mipverify.network.torch_import import read_module

    found = original.in_double(points)
    if found is None:
        return
    copy, outputs = found
    if not original.in_float32(points[:1]):
        compare(replace(network, double=True), points, outputs)
        return
    again = snapshot(read_module(network.module, network.input_shape, "float32"))
    with np.errstate(over="ignore", invalid="ignore"):
        scores = again.forward(points.astype(np.float64).reshape(len(points), *network.input_shape))
    compare(replace(network, double=True, dropped=()), points, scores.reshape(len(points), -1))
    try:
        wide = snapshot(read_module(copy, network.input_shape, "float64"))
    except InputError:  # the copy insists on float32: it casts to it
        return
    compare(wide, points, outputs)


def compare(network: Network, points: np.ndarray, outputs: np.ndarray, dtype: Any = np.float64) -> None:
    """Raise InputError where outputs (P, k) of the original at points (P, n) are not those of `network`.

    dtype: of our side of the comparison. Outputs beyond float32, NaN or infinite, say nothing.
    """
    finite = np.isfinite(outputs).all(axis=1)
    if _is_its_own_original(network) or not finite.any():
        return
    points, outputs = points[finite], outputs[finite]
    with np.errstate(over="ignore", invalid="ignore"):
        values = network.values(points.astype(dtype).reshape(len(points), *network.input_shape))
        scores = values[network.output].reshape(len(points), -1).astype(np.float64)
        errors = error_bounds(network, values, network.double)[network.output].reshape(1, -1).astype(np.float64)
        right = _explained(network, scores, errors, outputs.astype(np.float64))
    if right.all():
        return
    at = int(np.flatnonzero(~right.all(axis=1))[0])
    raise InputError(_difference(network, points[at], scores[at], errors[0], outputs[at], right[at]))


def _explained(network: Network, scores: np.ndarray, errors: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Entry by entry (P, k), whether rounding of scores (P, n) up to `errors` (1, n) explains the outputs."""
    for name in network.dropped:
        if name == "ArgMax":
            if outputs.shape[1] != 1 or not ((outputs >= 0) & (outputs < scores.shape[1])).all():
                return np.zeros(outputs.shape, bool)
            chosen = outputs.astype(int)
            best = (scores - errors).max(axis=1, keepdims=True)
            return np.take_along_axis(scores + errors, chosen, axis=1) >= best
        scores, errors = _applied(name, scores, errors, unit_roundoff(network.double))
    return (np.abs(outputs - scores) <= errors) | (outputs == scores)  # false for NaN


def _applied(name: str, scores: np.ndarray, errors: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """A dropped function of scores (P, n) and bounds of the error of its value there.

    The runtime's exponential is a polynomial of some units in the last place: 64 units cover it.
    """
    widest = errors.max(axis=1, keepdims=True)
    if name == "Sigmoid":
        values = 0.5 * (1 + np.tanh(0.5 * scores))
        return values, np.minimum(errors / 4, 1.0) + 64 * unit
    shifted = scores - scores.max(axis=1, keepdims=True)
    logarithm = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    if name == "LogSoftmax":
        return logarithm, 2 * widest + 64 * unit * (1 + np.abs(scores).max(axis=1, keepdims=True))
    values = np.exp(logarithm)
    inside = 2 * widest + 64 * unit * (1 + np.abs(shifted))
    return values, np.minimum(values * np.expm1(np.minimum(inside, 700.0)) + 64 * unit, 1.0)


def _difference(
    network: Network, point: np.ndarray, scores: np.ndarray, errors: np.ndarray, output: np.ndarray, right: np.ndarray
) -> str:
    entry = int(np.flatnonzero(~right)[0])
    what = f"output {entry} is {output[entry]:.9g} there"
    if not network.dropped:
        what += f" and {scores[entry]:.9g} as read, of which rounding explains {errors[entry]:.3g}"
    return f"{_name(network)}: what was read is not what runs: {what}"


def _check_shape(network: Network, original: OnnxRuntimeReplay, point: np.ndarray) -> None:
    shape = original.output(point).shape
    count = 1 if "ArgMax" in network.dropped else network.output_size
    if math.prod(shape) != count or (not network.dropped and shape != network.output_shape):
        raise InputError(
            f"{_name(network)}: what was read is not what runs: the output has the shape {list(shape)} there and "
            f"{list(network.output_shape)} as read"
        )


def _check_repetition(network: Network, original: Replay, point: np.ndarray, output: np.ndarray) -> None:
    again = original.run(point[None])[0]
    if not np.array_equal(again, output):
        entry = int(np.flatnonzero(again != output)[0])
        raise InputError(
            f"{_name(network)}: two runs on one input differ (output {entry} is {output[entry]:.9g}, then "
            f"{again[entry]:.9g}): export the model in evaluation mode"
        )


def _around(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random points (R, n) about the first of `points`, at the scales of `BEYOND`."""
    center = points[:1].astype(np.float64)
    spread = max(1.0, float(np.abs(points - center).max(initial=0.0)))
    steps = [scale * spread * rng.standard_normal((2, points.shape[1])) for scale in BEYOND]
    with np.errstate(over="ignore"):
        around = (center + np.concatenate(steps)).astype(np.float32)
    return around[np.isfinite(around).all(axis=1)]


def _is_its_own_original(network: Network) -> bool:
    return network.file is None and network.module is None


def _name(network: Network) -> str:
    return network.path or "the module"


def points_of(boxes: Sequence[tuple[np.ndarray, np.ndarray]], seed: int = 0) -> np.ndarray:
    """Points (P, n) of some boxes of float32 bounds (n,): centers, corners and random ones."""
    rng = np.random.default_rng(seed)
    found = []
    for low, high in boxes:
        sides = rng.random((2, len(low))) < 0.5
        shares = np.stack([np.full(len(low), 0.5), sides[0], ~sides[0], sides[1], rng.random(len(low))])
        inside = low.astype(np.float64) + shares * (high.astype(np.float64) - low)
        found.append(np.clip(inside.astype(np.float32), low, high))
    return np.concatenate(found)


def unit_box(network: Network) -> np.ndarray:
    """Points of [0, 1]^n, for want of an input set."""
    size = network.input_size
    return points_of([(np.zeros(size, np.float32), np.ones(size, np.float32))])
