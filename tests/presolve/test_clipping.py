"""Bounds clipped to where planes are not positive hold at all such points, and are nearly as tight as programs'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
from mipverify.presolve import crown, interval
from mipverify.presolve.clipping import clip

from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense
from mipverify.proof.backward import propagate_backward
from mipverify.proof.bounds import Bounds, assume
from mipverify.proof.clipping import Clipped, confine
from mipverify.proof.facts import Assumption, Ceiling
from mipverify.proof.interval import tighten
from mipverify.proof.rows import LinearBounds, unit_rows
from tests.presolve import nets

NETWORKS: dict[str, Callable[[np.random.Generator], Network]] = {
    "dense": lambda rng: nets.dense(rng, (6, 12, 10, 8, 2)),
    "skips": lambda rng: nets.dense(rng, (6, 8, 8, 8, 2), skip=True),
    "convolutional": lambda rng: nets.convolutional(rng, 5),
}


class Cut:
    """A network with planes a . x + constant <= 0, `each` for each of some entries of a batch, over one box.

    The planes are values of units: those of an affine node that a ReLU reads, before the layers of the network. The
    first one of each entry is its row that is low, the others are of units that are split to be inactive.
    """

    def __init__(
        self, network: Network, lower: np.ndarray, upper: np.ndarray, a: np.ndarray, constant: np.ndarray, each: int = 1
    ):
        count = len(constant)
        first, *others = network.nodes
        moved = [_later(node) for node in others]
        plane = Affine((count,), (Term(0, Dense(a)),), constant)
        self.network = Network((first, plane, Relu((count,), 1), *moved), network.output + 2)
        self.node, self.each, self.a, self.constant = 1, each, a, constant
        self.entry = np.repeat(np.arange(count // each), each)
        self.root = crown(interval(self.network, lower[None], upper[None]))

    @property
    def own(self) -> list[int]:
        """The pre-activations of the network itself."""
        return [node for node in self.network.preactivations if node != self.node]

    def planes(self) -> tuple[Bounds, LinearBounds, list[LinearBounds]]:
        """What `clip` and `confine` are given."""
        units = np.arange(len(self.constant))
        low, split = units[:: self.each], np.delete(units, units[:: self.each])
        phases = [tuple((2, int(u), -1) for u in split if self.entry[u] == k) for k in range(len(low))]
        bounds = assume(self.root, [Assumption(splits) for splits in phases], [None] * len(low))
        rows = unit_rows(self.network, self.node, low, None, self.root.like)
        further = unit_rows(self.network, self.node, split, self.entry[split], self.root.like)
        below = [propagate_backward(bounds, further)] if len(split) else []
        return bounds, propagate_backward(self.root, rows), below

    def clipped(self, wanted: dict[int, np.ndarray] | None = None, level: float = 0.0) -> Bounds:
        bounds, low, split = self.planes()
        return clip(bounds, low, level, split, wanted)


def _later(node: Affine | Relu) -> Affine | Relu:
    """A node with two more nodes before it, behind the input."""

    def moved(source: int) -> int:
        return source + 2 if source else 0

    if isinstance(node, Relu):
        return replace(node, source=moved(node.source))
    return replace(node, terms=tuple(replace(term, source=moved(term.source)) for term in node.terms))


def made(kind: str, rng: np.random.Generator) -> tuple[Network, np.ndarray, np.ndarray]:
    network = NETWORKS[kind](rng)
    center = rng.normal(size=network.input_shape)
    return network, center - 0.6, center + 0.6


def corners(
    rng: np.random.Generator, network: Network, lower: np.ndarray, upper: np.ndarray, count: int, each: int
) -> tuple[Cut, np.ndarray]:
    """Random planes, `each` for an entry, which cut off all but a corner, and points (N, n) around the corners."""
    size = lower.size
    low, high = lower.reshape(-1), upper.reshape(-1)
    ends = rng.choice([-1.0, 1.0], size=(count, size))
    a = np.repeat(ends, each, axis=0) * np.abs(rng.normal(size=(count * each, size)))
    least = np.minimum(a * low, a * high).sum(axis=1)
    constant = -least - 0.2 * (np.abs(a) @ (high - low))
    share = rng.random((count, 2000, size)) * rng.random((count, 2000, 1))
    share[:, ::2] = share[:, ::2].round()
    points = np.where(ends[:, None] > 0, low + share * (high - low), high - share * (high - low))
    return Cut(network, lower, upper, a, constant, each), points.reshape(-1, size)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("each", [1, 3])
def test_points_below_the_planes_lie_inside(kind: str, each: int) -> None:
    rng = np.random.default_rng(81)
    narrower = []
    for _ in range(4):
        network, lower, upper = made(kind, rng)
        cut, flat = corners(rng, network, lower, upper, 3, each)
        tight, bounds = cut.clipped(), cut.root
        values = cut.network.values(flat.reshape(-1, *lower.shape))
        for box in range(3):
            mine = cut.entry == box
            inside = (flat @ cut.a[mine].T + cut.constant[mine] <= 0).all(axis=1)
            assert inside.sum() > 5, "without points inside there is nothing to be seen"
            for node in cut.network.preactivations:
                seen = values[node][inside].reshape(inside.sum(), -1)
                low, high = (side[node][box % len(side[node])].reshape(-1) for side in (tight.lower, tight.upper))
                slack = 1e-9 * (1 + np.abs(seen))
                assert (seen >= low - slack).all()
                assert (seen <= high + slack).all()
                before = (bounds.upper[node] - bounds.lower[node]).reshape(-1)
                assert (high - low <= before).all()
                if node in cut.own:
                    narrower.append(((before - (high - low)) / before).max())
    assert np.median(narrower) > 0.05, "bounds that hardly move would show no fault"


@pytest.mark.parametrize("each", [1, 4])
def test_units_of_the_first_layer_come_close_to_linear_programs(each: int) -> None:
    rng = np.random.default_rng(82)
    network = nets.dense(rng, (40, 12, 2))
    lower, upper = -np.ones(40), np.ones(40)
    cut, _ = corners(rng, network, lower, upper, 1, each)
    tight, bounds = cut.clipped(), cut.root
    (source,) = cut.own
    rows = propagate_backward(bounds, unit_rows(cut.network, source, np.arange(12), None, bounds.like))
    ratios = []
    for unit in np.flatnonzero(np.asarray(bounds.unstable(source))[0]):
        ends = []
        for sign in (1, -1):
            found = scipy.optimize.linprog(
                sign * rows.coefficients[unit], A_ub=cut.a, b_ub=-cut.constant, bounds=np.c_[lower, upper]
            )
            ends.append(sign * found.fun + rows.constant[unit])
        low, high = (float(side[source][0, unit]) for side in (tight.lower, tight.upper))
        assert low <= ends[0] + 1e-7
        assert high >= ends[1] - 1e-7
        whole = float(bounds.upper[source][0, unit] - bounds.lower[source][0, unit])
        ratios.append((whole - (high - low)) / (whole - (ends[1] - ends[0])))
    assert len(ratios) > 5
    assert np.mean(ratios) > 0.85


@pytest.mark.parametrize("kind", NETWORKS)
def test_whatever_the_multipliers_are_bounds_hold_below_the_planes(kind: str) -> None:
    rng = np.random.default_rng(87)
    proven = 0
    network, lower, upper = made(kind, rng)
    cut, flat = corners(rng, network, lower, upper, 3, 2)
    bounds, planes = confine(*_with_level(cut))
    clipped = Clipped.of(bounds, planes)
    values = cut.network.values(flat.reshape(-1, *lower.shape))
    for node in cut.own:
        units = rng.integers(np.prod(cut.network.nodes[node].shape), size=60)
        entries = np.sort(rng.integers(3, size=60))
        rows = unit_rows(cut.network, node, units, entries, bounds.like).scaled(rng.choice([-1.0, 1.0], 60))
        linear = propagate_backward(bounds, rows)
        for multipliers in (rng.normal(size=(60, 2)), 1e3 * rng.random((60, 2)), np.full((60, 2), np.nan)):
            found = clipped.minimum(linear, np.arange(60), entries, multipliers)
            proven += int((np.isfinite(found.lower) | np.isfinite(found.upper)).sum())
            for k in range(60):
                mine = cut.entry == entries[k]
                inside = (flat @ cut.a[mine].T + cut.constant[mine] <= 0).all(axis=1)
                seen = values[node].reshape(len(flat), -1)[inside, units[k]]
                assert found.lower[k] <= seen.min() + 1e-9 * (1 + abs(seen.min()))
                assert found.upper[k] >= seen.max() - 1e-9 * (1 + abs(seen.max()))
    assert proven >= 100 * len(cut.own)


def _with_level(cut: Cut) -> tuple[Bounds, LinearBounds, float, list[LinearBounds]]:
    bounds, low, split = cut.planes()
    return bounds, low, 0.0, split


def test_a_part_without_points_shows_in_crossed_bounds() -> None:
    rng = np.random.default_rng(83)
    network, lower, upper = made("dense", rng)
    a = np.ones((1, 6))
    cut = Cut(network, lower, upper, a, -np.minimum(a * lower, a * upper).sum(axis=1) + 0.1)
    tight, source = cut.clipped(), cut.own[0]
    free = np.asarray(cut.root.unstable(source))
    assert (tight.lower[source] > tight.upper[source])[free].any()


def test_planes_below_a_row_count_its_errors_and_the_level() -> None:
    rng = np.random.default_rng(84)
    network, lower, upper = made("dense", rng)
    root = crown(interval(network, lower[None], upper[None]))
    low = propagate_backward(root, unit_rows(network, network.output, np.arange(2), None, lower))
    bounds, planes = confine(assume(root, [Assumption()] * 2, [None] * 2), low, 0.25, [])
    assert (planes.constant < low.constant - 0.25).all()
    assert planes.entry.tolist() == [0, 1]
    points = rng.uniform(lower, upper, size=(2000, 6))
    values = network.forward(points)
    assert (points @ planes.a.T + planes.constant <= values - 0.25).all()
    assert bounds.scope.assumption(1) == Assumption((), (Ceiling(network.output, 1, 1.0, 0.25),))


def test_what_holds_below_planes_is_claimed_of_nothing_else() -> None:
    rng = np.random.default_rng(88)
    network, lower, upper = made("dense", rng)
    cut, _ = corners(rng, network, lower, upper, 2, 2)
    bounds, low, split = cut.planes()
    inner, planes = confine(bounds, low, 0.0, split)
    source = cut.own[0]
    linear = propagate_backward(cut.root, unit_rows(cut.network, source, np.arange(2), None, bounds.like))
    clipped = Clipped.of(inner, planes)
    fact = clipped.minimum(linear, np.arange(2), np.arange(2), np.ones((2, 2)))
    tighten(inner, [fact])
    for outer in (bounds, cut.root):
        with pytest.raises(ValueError, match="input sets"):
            tighten(outer, [fact])
    with pytest.raises(ValueError, match="input sets"):
        Clipped.of(bounds, planes)
    # Rows of other inputs, units that were not split, or were split to be active.
    elsewhere = crown(interval(cut.network, lower[None], upper[None] + 1))
    rows = unit_rows(cut.network, cut.node, np.array([0, 2]), None, bounds.like)
    with pytest.raises(ValueError, match="stands for something"):
        confine(bounds, propagate_backward(elsewhere, rows), 0.0, [])
    with pytest.raises(ValueError, match="same input sets"):
        confine(bounds, low, 0.0, [propagate_backward(elsewhere, rows)])
    with pytest.raises(ValueError, match="not been split"):
        confine(bounds, low, 0.0, [propagate_backward(cut.root, rows)])
    active = unit_rows(cut.network, cut.node, np.array([1, 3]), np.arange(2), bounds.like).negated()
    with pytest.raises(ValueError, match="not been split"):
        confine(bounds, low, 0.0, [propagate_backward(bounds, active)])
    swapped = unit_rows(cut.network, cut.node, np.array([1, 3]), np.array([1, 0]), bounds.like)
    with pytest.raises(ValueError, match="not been split"):
        confine(bounds, low, 0.0, [propagate_backward(bounds, swapped)])
    with pytest.raises(ValueError, match="other entries"):
        clipped.minimum(split[0], np.arange(2), np.array([1, 0]), np.ones((2, 2)))


def test_only_wanted_units_are_worked_on() -> None:
    rng = np.random.default_rng(85)
    network, lower, upper = made("dense", rng)
    cut, _ = corners(rng, network, lower, upper, 1, 1)
    before = cut.root
    plane, first, *others = cut.network.relus
    masks = {relu: np.zeros((1, 1), bool) for relu in (plane, *others)}
    tight = cut.clipped({first: np.arange(12)[None] == 3, **masks})
    changed = {}
    for relu in cut.network.relus:
        source = cut.network.relu_source(relu)
        changed[relu] = (tight.upper[source] != before.upper[source]) | (tight.lower[source] != before.lower[source])
        assert not changed[relu].any() if relu != first else not np.delete(changed[relu][0], 3).any()
    assert changed[first][0, 3]


@pytest.mark.parametrize("constant", [-1e5, 1e5])
def test_a_plane_that_does_not_depend_on_the_input_cuts_off_nothing_or_all(constant: float) -> None:
    rng = np.random.default_rng(86)
    network, lower, upper = made("dense", rng)
    cut = Cut(network, lower, upper, np.zeros((1, 6)), np.array([constant]))
    tight, bounds, source = cut.clipped(), cut.root, cut.own[0]
    if constant < 0:  # it is below zero everywhere
        values = np.asarray(cut.network.values(rng.uniform(lower, upper, size=(2000, 6)))[source])
        assert (values >= tight.lower[source]).all()
        assert (values <= tight.upper[source]).all()
    else:
        assert (tight.lower[source] >= bounds.lower[source]).all()
        assert (tight.upper[source] <= bounds.upper[source]).all()


def test_phases_of_inputs_narrow_no_box_but_that_of_their_entry() -> None:
    # y = relu(x0) + x1 with x0 halved: what is clipped of one half must not rest on the box of the other.
    network = Network(
        (
            Input((2,)),
            Relu((2,), 0),
            Affine((1,), (Term(1, Dense(np.array([[1.0, 0.0]]))), Term(0, Dense(np.array([[1.0, 1.0]]))))),
            Relu((1,), 2),
            Affine((1,), (Term(3, Dense(np.array([[1.0]]))),)),
        ),
        4,
    )
    root = crown(interval(network, -np.ones((1, 2)), np.ones((1, 2))))
    bounds = assume(root, [Assumption(((1, 0, -1),)), Assumption(((1, 0, 1),))], [None, None])
    rows = unit_rows(network, 4, np.zeros(2, int), np.arange(2), bounds.like)
    inner = clip(bounds, propagate_backward(bounds, rows), 10.0, [])
    x = np.random.default_rng(0).uniform(-1, 1, (1000, 2))
    values = network.values(x)
    for entry, own in enumerate((x[:, 0] <= 0, x[:, 0] >= 0)):
        for node in network.preactivations:
            low, high = (side[node][entry if len(side[node]) > 1 else 0] for side in (inner.lower, inner.upper))
            assert (low <= values[node][own]).all()
            assert (values[node][own] <= high).all()
