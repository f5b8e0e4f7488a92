"""Linear programs of nodes: bounds below what attacks find, empty nodes closed, and only where ascents are stuck."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from mipverify.presolve import Search, crown, interval
from mipverify.solvers import lp_session
from mipverify.solvers.branch_and_bound.domain_clipping import DomainClipping
from mipverify.solvers.branch_and_bound.phases import PhaseBounder
from mipverify.solvers.branch_and_bound.programs import NodePrograms
from mipverify.solvers.branch_and_bound.refinements import STUCK, TRY_AGAIN
from mipverify.solvers.branch_and_bound.splits import Node, root

from mipverify.formulation import Milp
from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import Assumption, Ceiling
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import Rows, functionals, unit_rows
from tests.branch_and_bound.test_node_bounds import lowest_inside, node_of, some_node, unstable_units
from tests.presolve import nets


def made(seed: int, radius: float = 0.5) -> tuple[Bounds, Rows, NodePrograms]:
    rng = np.random.default_rng(seed)
    network = nets.dense(rng, (5, 12, 10, 8, 3))
    lower, upper = nets.boxes(rng, network, 1, radius=radius)
    return asked(reduce(crown(interval(network, lower, upper))).bounds)


def asked(bounds: Bounds) -> tuple[Bounds, Rows, NodePrograms]:
    """Programs for all outputs."""
    outputs = np.arange(bounds.network.output_size)
    rows = unit_rows(bounds.network, bounds.network.output, outputs, None, bounds.like)
    programs = NodePrograms.of(bounds.network, rows, lp_session)
    assert programs is not None
    return bounds, rows, programs


def solve(programs: NodePrograms, bounder: PhaseBounder, nodes: list[Node]) -> tuple[list[Node], np.ndarray]:
    points = np.full((len(nodes), *bounder.network.input_shape), np.nan)
    return programs.raise_bounds(nodes, bounder.bounds(nodes), points, lambda: False), points


@pytest.mark.parametrize("seed", range(4))
def test_programs_lie_between_ascents_and_what_attacks_find(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bounds, rows, programs = made(seed)
    bounder = PhaseBounder(bounds, rows)
    low, high = bounds.lower[0][0], bounds.upper[0][0]
    point = rng.uniform(low, high)
    values, units = bounds.network.values(point[None]), unstable_units(bounds)
    nodes = []
    for _ in range(12):
        splits = some_node(bounds.network, units, values, 0, int(rng.integers(0, len(units) // 2)), rng)
        nodes.append(node_of(int(rng.integers(3)), splits))
    raised, points = solve(programs, bounder, nodes)
    climbed = bounder.solve(nodes, Search(iterations=100, enough=np.inf))[1].lower
    for k, node in enumerate(raised):
        least = lowest_inside(bounds.network, low, high, node.splits, point, node.condition, rng)
        assert climbed[k] - 1e-6 * (1 + abs(climbed[k])) <= node.lower <= least + 1e-9 * (1 + abs(least))
        assert ((low <= points[k]) & (points[k] <= high)).all()
        assert node.excess is not None
        assert min(values.min() for values in node.excess.values()) > -1e-6
    # From its own basis a program comes to the same end.
    again, _ = solve(pickle.loads(pickle.dumps(programs)), bounder, raised)
    np.testing.assert_allclose([n.lower for n in again], [n.lower for n in raised], rtol=1e-6, atol=1e-6)


def test_splits_that_no_input_meets_close_a_node_up_to_its_ceiling() -> None:
    closed = 0
    for seed in range(16):
        rng = np.random.default_rng(seed)
        bounds, rows, programs = made(seed)
        bounder, relu = PhaseBounder(bounds, rows), bounds.network.relus[0]
        sampled = bounds.network.values(
            rng.uniform(bounds.lower[0], bounds.upper[0], (4000, *bounds.lower[0].shape[1:]))
        )
        active = sampled[bounds.network.relu_source(relu)] >= 0
        # Phases of the first layer that no sample has.
        signs = np.where(rng.random(active.shape[1]) < 0.5, 1, -1)
        if (active == (signs > 0)).all(axis=1).any():
            continue
        splits = tuple((relu, unit, int(sign)) for unit, sign in enumerate(signs))
        for ceiling in (float("inf"), 0.25):
            levels = (Ceiling(bounds.network.output, 0, 1.0, ceiling),) if np.isfinite(ceiling) else ()
            start = replace(root(0), assumption=Assumption(splits, levels), lower=-1.0)
            ((node,), _) = solve(programs, bounder, [start])
            closed += node.lower > 0
            assert node.lower <= ceiling
            assert (node.fact is not None) == (node.lower > -1)
            assert node.fact is None or node.fact.scope.assumption(node.place) == start.assumption
    assert closed > 4


@pytest.mark.parametrize("record", [False, True])
def test_where_all_units_are_split_programs_are_proven_to_their_optimum_or_to_be_empty(record: bool) -> None:
    empty = met = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        network = nets.dense(rng, (3, 6, 5, 2))
        lower, upper = nets.boxes(rng, network, 1, radius=1.5)
        bounds, rows, programs = asked(reduce(crown(interval(network, lower, upper, record=record))).bounds)
        session = lp_session()
        for _ in range(6):
            splits = tuple((*unit, int(rng.choice([-1, 1]))) for unit in unstable_units(bounds))
            start = root(int(rng.integers(2)))
            start = replace(start, assumption=Assumption(splits))
            (sides,) = programs.programs.sides(PhaseBounder(bounds, rows).bounds([start]), 1)
            if sides is None:
                continue
            milp = programs.programs.program(start.condition, 1.0, sides)
            session.open(milp)
            answer = session.solve(5.0)
            ((node,), _) = solve(programs, PhaseBounder(bounds, rows), [start])
            if answer.empty:
                assert node.lower == np.inf
            elif answer.optimal and answer.point is not None:
                assert node.lower == pytest.approx(milp.objective @ answer.point + milp.offset, abs=1e-5)
            empty, met = empty + answer.empty, met + answer.optimal
    assert empty > 20
    assert met > 5


def test_what_the_network_is_in_doubt_about_lowers_bounds() -> None:
    bounds, rows, programs = made(1)
    before, _ = solve(programs, PhaseBounder(bounds, rows), [root(k) for k in range(3)])
    nodes, moved, rng = [], [], np.random.default_rng(1)
    for node in bounds.network.nodes:
        if isinstance(node, Affine) and node.error_bound is not None:
            assert node.bias is not None
            off = rng.choice([-0.25, 0.25], size=node.shape)
            moved.append(replace(node, bias=node.bias + off))
            nodes.append(replace(node, error_bound=node.error_bound + 0.25))
        else:
            moved.append(node)
            nodes.append(node)
    output, box = bounds.network.output, (bounds.lower[0], bounds.upper[0])
    bounds, rows, programs = asked(crown(interval(Network(tuple(nodes), output), *box)))
    after, _ = solve(programs, PhaseBounder(bounds, rows), [root(k) for k in range(3)])
    assert all(b.lower < a.lower - 0.25 for a, b in zip(before, after, strict=True))
    least = Network(tuple(moved), output).forward(nets.points(rng, *box, 4000)[:, 0]).min(axis=0)
    assert all(node.lower <= low for node, low in zip(after, least, strict=True))


def test_nodes_get_programs_once_ascents_are_stuck_and_only_while_these_help(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds, rows, programs = made(2, radius=0.8)
    asked: list[int] = []
    monkeypatch.setattr(
        NodePrograms, "raise_bounds", lambda self, nodes, bounds, points, stop: asked.append(len(nodes)) or list(nodes)
    )
    clipping = DomainClipping(bounds.network, 1e-3)
    still = Search(iterations=0)
    bounder = PhaseBounder(bounds, rows, still, patient=None, clipping=clipping, long=None, programs=programs)
    nodes = [replace(root(k), lower=-1e-6) for k in range(3)]  # no ascent gets there
    for turn in range(STUCK):
        assert not asked
        nodes, _ = bounder.raise_bounds(nodes)
        assert [node.stalled for node in nodes] == [turn + 1] * 3
    assert asked == [3]
    for _ in range(3 * TRY_AGAIN):
        nodes, _ = bounder.raise_bounds(nodes)
    assert 4 < len(asked) < 2 * TRY_AGAIN, "programs that gain nothing are tried now and then"


def test_nodes_get_a_long_ascent_once_shorter_ones_are_stuck() -> None:
    bounds, rows, _ = made(2, radius=0.8)
    bounder = PhaseBounder(bounds, rows, Search(iterations=0), patient=None)
    start, _ = bounder.raise_bounds([root(k) for k in range(3)])
    nodes = start
    for _ in range(STUCK - 2):  # the first bound is no gain on anything
        nodes, _ = bounder.raise_bounds(nodes)
        assert [node.lower for node in nodes] == [node.lower for node in start]
    nodes, _ = bounder.raise_bounds(nodes)
    assert all(node.lower > before.lower for node, before in zip(nodes, start, strict=True))


def test_a_minimum_at_the_end_of_hidden_bounds_is_not_cut_off() -> None:
    weight, difference = np.array([[1.0], [-1.0]]), np.array([[1.0, -1.0]])
    nodes = (
        Input((1,)),
        Affine((2,), (Term(0, Dense(weight)),)),
        Relu((2,), 1),
        Affine((1,), (Term(2, Dense(difference)),)),  # x itself
    )
    bounds = reduce(crown(interval(Network(nodes, 3), np.array([[-1.0]]), np.array([[1.0]])))).bounds
    for sign in (1.0, -1.0):
        rows = unit_rows(bounds.network, bounds.network.output, np.zeros(1, int), None, bounds.like)
        rows = rows.scaled(np.array([sign]))
        programs = NodePrograms.of(bounds.network, rows, lp_session)
        assert programs is not None
        ((node,), _) = solve(programs, PhaseBounder(bounds, rows), [root(0)])
        assert -1 - 1e-6 < node.lower <= -1


@pytest.mark.parametrize("gap", [1e-3, 0.3])
def test_programs_without_a_point_have_multipliers_that_show_it(gap: float) -> None:
    session = lp_session()
    for size in (1.0, 100.0):
        matrix = sp.csr_array(np.array([[size, size], [size, -size], [1.0, 0.0]]))
        low, high = np.array([1.0, 0.0, 0.0]) * size, np.array([np.inf, 0.0, 0.5 - gap])
        box = np.full(2, -10.0), np.full(2, 10.0)
        milp = Milp(np.array([-1.0, 0.0]), 0.0, matrix, low, high, *box, np.zeros(2, bool))
        session.open(milp, session.basis())
        found = session.solve(5.0, cutoff=1e3)
        assert found.point is None
        assert found.multipliers is not None
        # The rows times their multipliers are nowhere in the box as large as their sides say [Farkas].
        sides = np.where(found.multipliers > 0, low, np.where(found.multipliers < 0, high, 0.0))
        assert found.multipliers @ sides > 10 * np.abs(matrix.T @ found.multipliers).sum()


def test_bounds_beyond_float64_are_no_program() -> None:
    bounds, rows, programs = made(3)
    lower, upper = bounds.lower[0], bounds.upper[0]
    for end in (np.inf, np.nan):
        high = upper.copy()
        high.reshape(-1)[0] = end
        with np.errstate(invalid="ignore"):
            endless = interval(bounds.network, lower, high)
        assert not endless.finite().all()
        node = replace(root(0), lower=-1.0)
        (raised,), _ = solve(programs, PhaseBounder(endless, rows), [node])
        assert raised is node
    huge = functionals(rows.coefficients, constant=np.full(3, np.inf))
    assert NodePrograms.of(bounds.network, huge, lp_session) is None
