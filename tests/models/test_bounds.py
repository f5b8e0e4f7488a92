"""The bounds of training: those of verification to rounding, and sound by sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mipverify.models import Traced, differentiable, input_box, training_bounds
from mipverify.models.traced import detached
from mipverify.presolve import interval, tighten_by_layer
from torch import nn

from mipverify.errors import InputError
from mipverify.network import Input, Network, Relu
from mipverify.proof.backward import NOTHING, estimate_minimum, pass_coefficients, unit_minimum
from mipverify.proof.bounds import Bounds, Intervals
from mipverify.proof.facts import UnitBounds
from mipverify.proof.interval import affine_interval
from mipverify.proof.relaxation import Relaxation
from mipverify.proof.rows import unit_rows
from tests.models.nets import EPS, NAMES, case

METHODS = ("interval", "improved_interval", "crown")


def boxes(traced: Traced, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    lower, upper = (side.numpy().reshape(-1, *traced.network.input_shape) for side in input_box(x, EPS))
    return lower, upper


def agree(ours, reference) -> None:
    """The bounds of what ReLUs read are equal to rounding.

    Rounding alone decides whether rows are made for a unit that is inactive to rounding, or active: there, only the
    side that shows it counts.
    """
    for node in reference.network.preactivations:
        low, high = reference.lower[node], reference.upper[node]
        for mine, theirs, counts in (
            (ours.lower, low, high > 1e-12),
            (ours.upper, high, low < -1e-12),
        ):
            np.testing.assert_allclose(mine[node].detach().numpy()[counts], theirs[counts], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_interval_is_that_of_presolve(name: str) -> None:
    _, traced, x = case(name)
    agree(
        training_bounds(traced.network, *input_box(x, EPS)).bounds,
        interval(detached(traced.network), *boxes(traced, x)),
    )


def by_crown(bounds: Bounds, node: int, samples: np.ndarray, units: np.ndarray) -> list[UnitBounds]:
    """A bounder for `tighten_by_layer`: sound rows of verification."""
    return [unit_minimum(bounds, node, samples, units)]


def with_improved_lines(network: Network, lower: np.ndarray, upper: np.ndarray) -> Intervals:
    """Layer by layer what rows make of unstable units with the lines of `improved`, which training alone has."""
    lows, highs = [lower], [upper]
    for index, node in enumerate(network.nodes[1:], 1):
        assert not isinstance(node, Input)
        if isinstance(node, Relu):
            lows.append(np.maximum(lows[node.source], 0))
            highs.append(np.maximum(highs[node.source], 0))
            continue
        low, high = affine_interval(node, lows, highs)
        before = Intervals(Network(network.nodes[: index + 1], index), (*lows, low), (*highs, high))
        samples, units = np.nonzero(before.unstable(index).reshape(len(low), -1))
        if index in network.preactivations and len(units):
            lines = {r: improved(*(s[network.relu_source(r)] for s in (lows, highs))) for r in before.network.relus}
            sides = []
            own = unit_rows(network, index, units, samples, low)
            for rows in (own, own.negated()):
                sides.append(
                    estimate_minimum(before, pass_coefficients(before, rows, NOTHING, False, None, lines), samples)
                )
            flat = low.reshape(len(low), -1), high.reshape(len(high), -1)
            flat[0][samples, units] = np.maximum(flat[0][samples, units], sides[0])
            flat[1][samples, units] = np.minimum(flat[1][samples, units], -sides[1])
        lows.append(low)
        highs.append(high)
    return Intervals(network, tuple(lows), tuple(highs))


def improved(lower: np.ndarray, upper: np.ndarray) -> Relaxation:
    """Active units pass, all others are intervals."""
    active = np.where(lower >= 0, 1.0, 0.0)
    return Relaxation(active, active, np.where(lower >= 0, 0.0, np.maximum(upper, 0)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["improved_interval", "crown"])
def test_rows_are_those_of_presolve(name: str, method: str) -> None:
    _, traced, x = case(name)
    network, box = detached(traced.network), boxes(traced, x)
    reference: Intervals = (
        tighten_by_layer(interval(network, *box), by_crown) if method == "crown" else with_improved_lines(network, *box)
    )
    agree(training_bounds(traced.network, *input_box(x, EPS), method).bounds, reference)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [None, 5])
def test_sampled_points_lie_inside(name: str, method: str, rows: int | None) -> None:
    _, traced, x = case(name)
    lower, upper = input_box(x, EPS)
    network = traced.network
    with torch.no_grad():
        found = training_bounds(network, lower, upper, method, rows=rows).bounds
        share = torch.rand(300, *x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
        share[::2] = share[::2].round()
        points = lower + share * (upper - lower)
        values = network.values(points.reshape(-1, *network.input_shape))
    for value, low, high in zip(values, found.lower, found.upper, strict=True):
        value = value.reshape(300, *low.shape)
        assert (value >= low - 1e-9).all()
        assert (value <= high + 1e-9).all()


@pytest.mark.parametrize("method", ["improved_interval", "crown"])
def test_rows_tighten_intervals(method: str) -> None:
    """Each architecture gains something, or these tests would compare intervals with themselves."""
    for name in NAMES:
        _, traced, x = case(name)
        boxes = input_box(x, EPS)
        wide, tight = (training_bounds(traced.network, *boxes, m).bounds for m in ("interval", method))
        gained = 0.0
        for node in traced.network.preactivations:
            assert (tight.lower[node] >= wide.lower[node] - 1e-12).all()
            assert (tight.upper[node] <= wide.upper[node] + 1e-12).all()
            gained += float((tight.lower[node] - wide.lower[node]).detach().sum())
        assert gained > 1e-3, name


def test_improved_interval_composes_the_weights_of_active_units() -> None:
    """Against the definition, W_N by intervals and W_A W_1 on the input, written out for two dense layers."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(5, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 2)).double()
    x = torch.rand(1, 5, dtype=torch.float64)
    found = training_bounds(Traced(module, (5,)).network, *input_box(x, 0.1), "improved_interval").bounds
    lower, upper = (side[0] for side in input_box(x, 0.1))
    W1, b1, W2, b2 = (p.detach() for p in list(module.parameters())[:4])

    def through(W, low, high):
        return W.clamp(min=0) @ low + W.clamp(max=0) @ high, W.clamp(min=0) @ high + W.clamp(max=0) @ low

    l1, u1 = (side + b1 for side in through(W1, lower, upper))
    active = l1 >= 0
    assert 0 < active.sum() < 30
    W_A, W_N = W2 * active, W2 * ~active
    by_input = through(W_A @ W1, lower, upper)
    by_interval = through(W_N, l1.clamp(min=0), u1.clamp(min=0))
    l2, u2 = (a + n + W_A @ b1 + b2 for a, n in zip(by_input, by_interval, strict=True))
    unstable = (l2 < 0) & (u2 > 0)
    assert unstable.any()
    torch.testing.assert_close(found.lower[3][0, 0][unstable], l2[unstable])
    torch.testing.assert_close(found.upper[3][0, 0][unstable], u2[unstable])


@pytest.mark.parametrize("name", ["dense", "windows", "skip"])
@pytest.mark.parametrize("method", ["improved_interval", "crown"])
def test_chunks_change_nothing(name: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, traced, x = case(name)
    results = []
    for size in (differentiable.CHUNK_BYTES, 8000):
        monkeypatch.setattr(differentiable, "CHUNK_BYTES", size)
        module.zero_grad()
        found = training_bounds(traced.network, *input_box(x, EPS), method).bounds
        torch.stack([(found.upper[i] - found.lower[i]).sum() for i in traced.network.preactivations]).sum().backward()
        results.append(
            [found.lower[i].detach() for i in traced.network.preactivations] + [p.grad for p in module.parameters()]
        )
    for a, b in zip(*results, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b)


def test_a_sample_of_rows_counts_for_all() -> None:
    _, traced, x = case("dense")
    found = training_bounds(traced.network, *input_box(x, 0.5), "crown", rows=4)
    network = traced.network
    assert found.weights
    for node, weight in found.weights.items():
        low, high = found.bounds.lower[node], found.bounds.upper[node]
        everything = training_bounds(network, *input_box(x, 0.5), "interval").bounds
        assert weight.shape == low.shape == high.shape
        assert int((weight > 1).sum()) == 4
        assert ((weight == 1) <= ~everything.unstable(node) | (weight > 1)).all()


def test_bad_arguments_are_refused() -> None:
    _, traced, x = case("dense")
    with pytest.raises(InputError, match="crwon"):
        training_bounds(traced.network, *input_box(x, EPS), "crwon")
    with pytest.raises(InputError, match="rows"):
        training_bounds(traced.network, *input_box(x, EPS), "crown", rows=0)
    with pytest.raises(InputError, match="eps"):
        input_box(x, -0.1)


def test_radius_for_each_feature_and_domains() -> None:
    x = torch.tensor([[0.0, 0.5, 1.0]])
    lower, upper = input_box(x, torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(lower, torch.tensor([[0.0, 0.3, 0.7]]))
    torch.testing.assert_close(upper, torch.tensor([[0.1, 0.7, 1.0]]))
    lower, upper = input_box(x, 0.1, None)
    torch.testing.assert_close(lower, x - 0.1)
    lower, upper = input_box(x.clamp(0.2, 0.6), 0.1, (0.2, 0.6))  # an x outside of the domain is refused
    assert lower.min() == 0.2
    assert upper.max() == pytest.approx(0.6)
