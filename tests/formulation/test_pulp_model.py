"""Networks in PuLP models: optima are those of the network, several fit into one, what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pulp
import pytest

import mipverify
from mipverify import InputError
from mipverify.formulation import to_pulp
from mipverify.specification import Box, robustness
from tests.cli.files import network as tiny
from tests.presolve import nets

CBC = pulp.PULP_CBC_CMD(msg=False)


def variables(count: int, low: float = -1, high: float = 1, name: str = "x") -> list[pulp.LpVariable]:
    return [pulp.LpVariable(f"{name}{k}", low, high) for k in range(count)]


@pytest.mark.parametrize("seed", range(3))
def test_an_embedded_network_has_its_optimum_where_a_grid_has_it(seed: int) -> None:
    network = nets.dense(np.random.default_rng(seed), (2, 8, 8, 2), skip=True)
    model, inputs = pulp.LpProblem("m", pulp.LpMaximize), variables(2)
    outputs = mipverify.embed(model, network, inputs)
    model += outputs[0] - 0.5 * outputs[1] + inputs[0]
    model += inputs[0] + 2 * inputs[1] <= 0.75, "budget"
    model.solve(CBC)
    side = np.linspace(-1, 1, 401)
    points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    points = points[points @ [1, 2] <= 0.75]
    value = network.forward(points) @ [1, -0.5] + points[:, 0]
    found, at = model.objective.value(), np.array([variable.value() for variable in inputs])
    assert found == pytest.approx(float(network.forward(at[None])[0] @ [1, -0.5] + at[0]), abs=1e-4)
    assert value.max() - 1e-4 <= found <= value.max() + 0.3
    np.testing.assert_allclose([output.value() for output in outputs], network.forward(at[None])[0], atol=1e-4)


def test_two_networks_in_one_model_feed_each_other() -> None:
    rng = np.random.default_rng(5)
    first, second = nets.dense(rng, (2, 6, 2)), nets.dense(rng, (2, 6, 1))
    model, inputs = pulp.LpProblem("m", pulp.LpMinimize), variables(2)
    (out,) = mipverify.embed(model, second, mipverify.embed(model, first, inputs, name="first"), name="second")
    model += out
    model.solve(CBC)
    at = np.array([[variable.value() for variable in inputs]])
    assert out.value() == pytest.approx(second.forward(first.forward(at))[0, 0], abs=1e-4)
    points = rng.uniform(-1, 1, size=(20000, 2))
    assert second.forward(first.forward(points)).min() >= out.value() - 1e-4


def test_integer_inputs_stay_integers() -> None:
    network = nets.dense(np.random.default_rng(1), (2, 8, 1))
    model = pulp.LpProblem("m", pulp.LpMaximize)
    inputs = [pulp.LpVariable(name, -3, 3, pulp.LpInteger) for name in "ab"]
    (out,) = mipverify.embed(model, network, inputs)
    model += out
    model.solve(CBC)
    grid = np.stack(np.meshgrid(np.arange(-3.0, 4), np.arange(-3.0, 4)), axis=-1).reshape(-1, 2)
    assert out.value() == pytest.approx(network.forward(grid).max(), abs=1e-4)


def test_a_model_of_its_own_has_inputs_and_outputs_by_name() -> None:
    network = nets.dense(np.random.default_rng(2), (3, 9, 2))
    inputs = robustness(np.full(3, 0.5), 0, "0.6", num_classes=2, norm="l1").cases[0].inputs
    model = to_pulp(network, inputs)
    known = model.variablesDict()
    model += known["output_1"]
    model.solve(CBC)
    at = np.array([known[f"input_{k}"].value() for k in range(3)])
    assert np.abs(at - 0.5).sum() <= 0.6 + 1e-6
    assert known["output_1"].value() == pytest.approx(network.forward(at[None])[0, 1], abs=1e-4)
    steps = np.random.default_rng(0).laplace(size=(20000, 3))
    points = 0.5 + 0.6 * steps / np.abs(steps).sum(axis=1, keepdims=True)
    points = points[((points >= 0) & (points <= 1)).all(axis=1)]
    assert network.forward(points)[:, 1].min() >= known["output_1"].value() - 1e-4


def test_a_stable_network_needs_no_binary() -> None:
    network = nets.dense(np.random.default_rng(0), (2, 8, 1))
    model = pulp.LpProblem("m", pulp.LpMinimize)
    mipverify.embed(model, network, variables(2, 0.3, 0.3 + 1e-9))
    assert not any(variable.cat == pulp.LpInteger for variable in model.variables())


def test_what_does_not_fit_is_refused_and_leaves_the_model_alone() -> None:
    network = nets.dense(np.random.default_rng(0), (2, 8, 1))
    model, (a, b) = pulp.LpProblem("m", pulp.LpMinimize), variables(2)
    mipverify.embed(model, network, [a, b], name="n")
    before = len(model.variables()), len(model.constraints)
    cases = [
        ([a], {}, "2 inputs, not 1"),
        ([a, pulp.LpVariable("free")], {}, "input 1 .*finite"),
        ([a, a + b], {}, "input 1 .*finite"),
        ([a, a], {}, "for two inputs"),
        ([a, b], {"name": "n"}, "already"),
        ([a, pulp.LpVariable("big", -1e308, 1e308)], {"name": "other"}, "overflow"),
        ([a, pulp.LpVariable("crossed", 1, 0)], {"name": "other"}, "empty"),
    ]
    for inputs, options, says in cases:
        with pytest.raises(InputError, match=says):
            mipverify.embed(model, network, inputs, **options)
    with pytest.raises(InputError, match="3 inputs, the network 2"):
        to_pulp(network, Box.from_floats(np.zeros(3), np.ones(3)))
    assert (len(model.variables()), len(model.constraints)) == before


def test_a_final_softmax_is_refused(tmp_path: Path) -> None:
    model = tiny()
    model.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["shares"], "final"))
    model.graph.output[0].name = "shares"
    onnx.save(model, tmp_path / "softmax.onnx")
    with pytest.raises(InputError, match=r"softmax\.onnx.*piecewise linear"):
        mipverify.embed(pulp.LpProblem("m"), mipverify.load(tmp_path / "softmax.onnx"), variables(4))
