"""Checks of what is concluded of two networks in one, as in `tests.proof.oracle`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mipverify.network import Affine, Input, Network, Relu, Term
from mipverify.network.operators import Dense, Identity, Index, Scale
from mipverify.network.pair import pair, with_inequalities
from mipverify.proof.backward import lower_sides, row_minimum
from mipverify.proof.bounds import Bounds
from mipverify.proof.interval import interval, tighten
from mipverify.proof.reduction import reduce
from mipverify.proof.rows import unit_rows
from mipverify.proof.subadditive import subadditive
from tests.proof.exact import dense, random_box, random_evidence, require_bounds

WIDTH = 4


def _sum(*parts: tuple[int, float], bias: float = 0.0, error: float = 0.0) -> Affine:
    """The sum of multiples of nodes."""
    terms = tuple(
        Term(source, Identity((WIDTH,)) if factor == 1 else Scale(np.float64(factor), (WIDTH,)))
        for source, factor in parts
    )
    given = (np.full(WIDTH, value) if value else None for value in (bias, error))
    return Affine((WIDTH,), terms, *given)


def check_subadditive(rng: np.random.Generator) -> None:
    """Nothing but relu(v) + relu(w) - relu(v + w) has a sign of its own, however much it looks like that."""
    b, d = (
        Affine((WIDTH,), (Term(0, Dense(rng.normal(size=(WIDTH, 3)))),), 0.1 * rng.normal(size=WIDTH)) for _ in range(2)
    )
    turned = Affine((WIDTH,), (Term(2, Index(np.roll(np.arange(WIDTH), 1), (WIDTH,), (WIDTH,))),))
    wholes = {
        "whole": _sum((1, 1.0), (2, 1.0)),
        "biased": _sum((1, 1.0), (2, 1.0), bias=0.3),
        "inexact": _sum((1, 1.0), (2, 1.0), error=0.3),
        "half": _sum((1, 1.0), (2, 0.5)),
        "less": _sum((1, 1.0), (2, -1.0)),
        "turned": _sum((1, 1.0), (3, 1.0)),
    }
    for name, whole in wholes.items():
        nodes = [Input((3,)), b, d, turned, whole, Relu((WIDTH,), 1), Relu((WIDTH,), 2), Relu((WIDTH,), 4)]
        rb, rd, ra, first = 5, 6, 7, 8
        sums = [
            (_sum((rd, 1.0), (ra, -1.0), (rb, 1.0)), name == "whole"),
            (_sum((rd, 1.0), (2, -1.0), (ra, 1.0), (rb, -1.0)), name == "whole"),
            (_sum((ra, 1.0), (rd, 1.0), (2, -1.0), (rb, -1.0)), name == "whole"),
            (_sum((ra, 1.0), (rd, 1.0), (1, -1.0), (rb, -1.0)), False),
            (_sum((rd, 1.0), (ra, 1.0), (rb, -1.0)), name == "less"),
            (_sum((rd, 1.0), (2, -1.0), (ra, -1.0), (rb, 1.0)), name == "less"),
            (_sum((rd, 1.0), (2, 1.0), (ra, 1.0), (rb, -1.0)), False),
            (_sum((rd, 1.0), (1, -1.0), (ra, 1.0), (rb, -1.0)), False),
            (_sum((rd, 1.0), (ra, -2.0), (rb, 1.0)), False),
            (_sum((rd, 1.0), (ra, -1.0), (rb, 1.0), bias=-0.3), False),
            (_sum((rd, 1.0), (ra, -1.0), (rb, 1.0), error=0.3), False),
            (_sum((rd, 1.0), (ra, -1.0)), False),
            (_sum((ra, -1.0), (rb, 1.0)), False),
        ]
        network = Network((*nodes, *(node for node, _ in sums)), first + len(sums) - 1)
        bounds = interval(network, *random_box(rng, 3, 0.5))
        facts = [subadditive(bounds, first + k) for k in range(len(sums))]
        for fact, (_, right) in zip(facts, sums, strict=True):
            assert ((fact.lower == 0) == right).all()
        require_bounds(tighten(bounds, facts), rng)


def check_two_networks(rng: np.random.Generator) -> None:
    """Bounds of two networks in one, with inequalities, from arbitrary evidence, as they are and reduced."""
    first = dense(rng, (3, 5, 4, 2))
    second = _changed(rng, first)
    both = pair(first, second)
    assert both.alike
    units = [rng.permutation(network.shape[0])[:3] for network in (first.nodes[2], first.nodes[4])]
    network = with_inequalities(both, units)
    bounds = interval(network, *random_box(rng, 3, 0.3))
    held = [network.relu_source(node) for node in network.inequalities]
    bounds = tighten(bounds, [subadditive(bounds, node) for node in held])
    assert all((bounds.lower[node] >= 0).all() for node in held)
    require_bounds(bounds, rng)
    _require_rows(rng, bounds)
    _require_reduced(rng, bounds)


def check_kept_units(rng: np.random.Generator) -> None:
    """Reduced networks that keep ReLUs although these are stable."""
    network = dense(rng, (3, 5, 4, 2))
    last = network.nodes[1]
    assert isinstance(last, Affine)
    stable = replace(last, bias=last.bias + np.array([9.0, 9.0, 0.0, 0.0, -9.0]))
    network = replace(network, nodes=(network.nodes[0], stable, *network.nodes[2:]), inequalities=(2,))
    _require_reduced(rng, interval(network, *random_box(rng, 3, 0.3)))


def _changed(rng: np.random.Generator, network: Network) -> Network:
    """A network whose weights are rounded, and some of them very different in size, so that differences round, too."""
    nodes = []
    for node in network.nodes:
        if isinstance(node, Affine):
            weight = node.terms[0].operator.weight  # type: ignore[attr-defined]
            small = np.where(rng.random(weight.shape) < 0.3, weight * 2.0**-40, weight)
            bias = node.bias * (1 + rng.choice([0, 2.0**-30, 0.1], node.bias.shape))
            node = replace(node, terms=(Term(node.terms[0].source, Dense(small)),), bias=bias)
        nodes.append(node)
    return replace(network, nodes=tuple(nodes))


def _require_rows(rng: np.random.Generator, bounds: Bounds) -> None:
    output = bounds.network.output
    size = bounds.network.output_size
    rows = unit_rows(bounds.network, output, np.arange(size), None, bounds.like).with_negated()
    evidence = random_evidence(rng, bounds, 2 * size)
    require_bounds(tighten(bounds, [lower_sides(row_minimum(bounds, rows, evidence))]), rng)


def _require_reduced(rng: np.random.Generator, bounds: Bounds) -> None:
    reduced = reduce(bounds)
    small = reduced.bounds
    assert small.network.inequalities
    require_bounds(tighten(bounds, reduced.lifted(small)), rng)
    rows = unit_rows(small.network, small.network.output, np.arange(small.network.output_size), None, small.like)
    for evidence in (random_evidence(rng, small, 2 * len(rows)), None):
        found = row_minimum(small, rows.with_negated(), *([] if evidence is None else [evidence]))
        require_bounds(tighten(bounds, [reduced.lifted_outputs(lower_sides(found))]), rng)
