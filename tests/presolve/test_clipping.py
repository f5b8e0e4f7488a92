"""Bounds clipped to where planes are not positive hold at all such points, and are nearly as tight as programs'."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from mipverify.presolve import Relaxed, crown, pass_back, unit_rows
from mipverify.presolve.clipping import Planes, clip

from mipverify.network import Network
from tests.presolve import nets

NETWORKS = {
    "dense": lambda rng: nets.dense(rng, (6, 12, 10, 8, 2)),
    "skips": lambda rng: nets.dense(rng, (6, 8, 8, 8, 2), skip=True),
    "convolutional": lambda rng: nets.convolutional(rng, 5),
}


def made(kind: str, rng: np.random.Generator) -> tuple[Network, np.ndarray, np.ndarray]:
    network = NETWORKS[kind](rng)
    center = rng.normal(size=network.input_shape)
    return network, center - 0.6, center + 0.6


def planes_at(
    rng: np.random.Generator, lower: np.ndarray, upper: np.ndarray, boxes: int, each: int
) -> tuple[Planes, np.ndarray]:
    """Random planes, `each` of them a box, which cut off all but a corner, and points (N, n) around the corners."""
    size = lower.size
    low, high = lower.reshape(-1), upper.reshape(-1)
    ends = rng.choice([-1.0, 1.0], size=(boxes, size))
    a = np.repeat(ends, each, axis=0) * np.abs(rng.normal(size=(boxes * each, size)))
    least = np.minimum(a * low, a * high).sum(axis=1)
    constant = -least - 0.2 * (np.abs(a) @ (high - low))
    share = rng.random((boxes, 2000, size)) * rng.random((boxes, 2000, 1))
    share[:, ::2] = share[:, ::2].round()
    points = np.where(ends[:, None] > 0, low + share * (high - low), high - share * (high - low))
    return Planes(a, constant, np.repeat(np.arange(boxes), each)), points.reshape(-1, size)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("each", [1, 3])
def test_points_below_the_planes_lie_inside(kind: str, each: int) -> None:
    rng = np.random.default_rng(81)
    narrower = []
    for _ in range(4):
        network, lower, upper = made(kind, rng)
        bounds = crown(network, lower[None], upper[None])
        planes, flat = planes_at(rng, lower, upper, 3, each)
        tight = clip(Relaxed(bounds), planes)
        values = network.values(flat.reshape(-1, *lower.shape))
        for box in range(3):
            mine = planes.box == box
            inside = (flat @ planes.a[mine].T + planes.constant[mine] <= 0).all(axis=1)
            assert inside.sum() > 5, "without points inside there is nothing to be seen"
            for node in network.preactivations:
                seen = values[node][inside].reshape(inside.sum(), -1)
                low, high = (side[node][box % len(side[node])].reshape(-1) for side in (tight.lower, tight.upper))
                slack = 1e-9 * (1 + np.abs(seen))
                assert (seen >= low - slack).all()
                assert (seen <= high + slack).all()
                before = (bounds.upper[node] - bounds.lower[node]).reshape(-1)
                assert (high - low <= before).all()
                narrower.append(((before - (high - low)) / before).max())
    assert np.median(narrower) > 0.05, "bounds that hardly move would show no fault"


@pytest.mark.parametrize("each", [1, 4])
def test_units_of_the_first_layer_come_close_to_linear_programs(each: int) -> None:
    rng = np.random.default_rng(82)
    network = nets.dense(rng, (40, 12, 2))
    lower, upper = -np.ones(40), np.ones(40)
    bounds = crown(network, lower[None], upper[None])
    planes, _ = planes_at(rng, lower, upper, 1, each)
    tight = clip(Relaxed(bounds), planes)
    source = network.preactivations[0]
    rows = pass_back(Relaxed(bounds), unit_rows(network, source, np.arange(12), None, lower))
    ratios = []
    for unit in np.flatnonzero(np.asarray(bounds.unstable(source))[0]):
        ends = []
        for sign in (1, -1):
            found = scipy.optimize.linprog(
                sign * rows.coefficients[unit], A_ub=planes.a, b_ub=-planes.constant, bounds=np.c_[lower, upper]
            )
            ends.append(sign * found.fun + rows.constant[unit])
        low, high = (float(side[source][0, unit]) for side in (tight.lower, tight.upper))
        assert low <= ends[0] + 1e-7
        assert high >= ends[1] - 1e-7
        whole = float(bounds.upper[source][0, unit] - bounds.lower[source][0, unit])
        ratios.append((whole - (high - low)) / (whole - (ends[1] - ends[0])))
    assert len(ratios) > 5
    assert np.mean(ratios) > 0.85


def test_a_part_without_points_shows_in_crossed_bounds() -> None:
    rng = np.random.default_rng(83)
    network, lower, upper = made("dense", rng)
    bounds = crown(network, lower[None], upper[None])
    a = np.ones((1, 6))
    planes = Planes(a, -np.minimum(a * lower, a * upper).sum(axis=1) + 0.1, np.zeros(1, int))
    tight = clip(Relaxed(bounds), planes)
    source = network.preactivations[0]
    free = np.asarray(bounds.unstable(source))
    assert (tight.lower[source] > tight.upper[source])[free].any()


def test_planes_below_a_row_count_its_errors_and_the_level() -> None:
    rng = np.random.default_rng(84)
    network, lower, upper = made("dense", rng)
    relaxed = Relaxed(crown(network, lower[None], upper[None]))
    rows = pass_back(relaxed, unit_rows(network, network.output, np.arange(2), None, lower))
    planes = Planes.below(rows, np.array([0, 0]), 0.25)
    assert (planes.constant < rows.constant - 0.25).all()
    points = rng.uniform(lower, upper, size=(2000, 6))
    values = network.forward(points)
    assert (points @ planes.a.T + planes.constant <= values - 0.25).all()
    both = planes.join(Planes(-planes.a, -planes.constant, np.array([1, 2])))
    assert both.box.tolist() == [0, 0, 1, 2]


def test_only_wanted_units_are_worked_on() -> None:
    rng = np.random.default_rng(85)
    network, lower, upper = made("dense", rng)
    bounds = crown(network, lower[None], upper[None])
    planes, _ = planes_at(rng, lower, upper, 1, 1)
    first, *others = network.relus
    masks = {relu: np.zeros((1, 1), bool) for relu in others}
    tight = clip(Relaxed(bounds), planes, {first: np.arange(12)[None] == 3, **masks})
    for relu in network.relus:
        source = network.relu_source(relu)
        changed = tight.upper[source] != bounds.upper[source]
        assert not changed.any() if relu != first else not np.delete(changed[0], 3).any()


@pytest.mark.parametrize("constant", [-1e5, 1e5])
def test_a_plane_that_does_not_depend_on_the_input_cuts_off_nothing_or_all(constant: float) -> None:
    rng = np.random.default_rng(86)
    network, lower, upper = made("dense", rng)
    bounds = crown(network, lower[None], upper[None])
    tight = clip(Relaxed(bounds), Planes(np.zeros((1, 6)), np.array([constant]), np.zeros(1, int)))
    source = network.preactivations[0]
    if constant < 0:  # it is below zero everywhere
        values = np.asarray(network.values(rng.uniform(lower, upper, size=(2000, 6)))[source])
        assert (values >= tight.lower[source]).all()
        assert (values <= tight.upper[source]).all()
    else:
        assert (tight.lower[source] >= bounds.lower[source]).all()
        assert (tight.upper[source] <= bounds.upper[source]).all()
