"""Programs that leave the house: the minimum is that of the question, files keep every digit, names tell units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highspy
import numpy as np
import pytest
from mipverify.presolve import interval
from mipverify.solvers import get_solver
from mipverify.solvers.interface import Limits

from mipverify.errors import InputError
from mipverify.formulation import Program, case_program, encode, margin_network, network_program
from mipverify.formulation.model_file import FORMATS
from mipverify.network import Network
from mipverify.specification import Box, Case, robustness
from tests.formulation.test_margin import conditions
from tests.presolve import nets

HIGHS = get_solver("highs")


def read_back(program: Program, suffix: str, folder: Path) -> Any:
    """The program as HiGHS reads the file, before it is solved."""
    path = folder / f"model{suffix}"
    path.write_text(FORMATS[suffix](program))
    engine = highspy.Highs()
    engine.setOptionValue("output_flag", False)
    engine.setOptionValue("mip_rel_gap", 0.0)
    assert engine.readModel(str(path)) != highspy.HighsStatus.kError
    return engine


def question(seed: int) -> tuple[Network, Case]:
    rng = np.random.default_rng(seed)
    network = nets.dense(rng, (4, 10, 10, 5), skip=bool(seed % 2))
    center = rng.normal(size=4)
    return network, Case(Box.from_floats(center - 0.5, center + 0.5), tuple(conditions(rng, [1, 3, 2, 1], True)))


@pytest.mark.parametrize("suffix", [".mps", ".lp"])
@pytest.mark.parametrize("seed", range(4))
def test_the_minimum_in_the_file_is_the_least_margin(seed: int, suffix: str, tmp_path: Path) -> None:
    network, case = question(seed)
    margins = margin_network(network, case.conditions)
    loose = encode(margins, interval(margins, case.box.lower[None], case.box.upper[None]))  # no CROWN, no choice
    expected = min(HIGHS.solve(loose.minimize(c), limits=Limits(60.0)).objective for c in range(4))
    program = case_program(network, case)
    engine = read_back(program, suffix, tmp_path)
    engine.run()
    found = engine.getInfo().objective_function_value
    assert found == pytest.approx(expected, abs=1e-5 * (1 + abs(expected)))
    solution = dict(zip(engine.getLp().col_names_, engine.getSolution().col_value, strict=True))
    x = np.array([solution[f"input_{k}"] for k in range(4)])
    assert margins.forward(x[None]).min() == pytest.approx(found, abs=1e-4 * (1 + abs(expected)))
    np.testing.assert_allclose(network.forward(x[None])[0], [solution[f"output_{k}"] for k in range(5)], atol=1e-4)
    unstable = int(loose.milp.integer.sum())
    assert program.milp.integer.sum() <= unstable + len(case.conditions)


@pytest.mark.parametrize("suffix", [".mps", ".lp"])
def test_a_file_keeps_every_digit(suffix: str, tmp_path: Path) -> None:
    network, case = question(0)
    program = case_program(network, case)
    milp, lp = program.milp, read_back(program, suffix, tmp_path).getLp()
    assert sorted(lp.col_names_) == sorted(program.columns)
    place = [lp.col_names_.index(name) for name in program.columns]
    for mine, theirs in ((milp.lower, lp.col_lower_), (milp.upper, lp.col_upper_), (milp.objective, lp.col_cost_)):
        np.testing.assert_array_equal(mine, np.asarray(theirs)[place])
    assert [lp.integrality_[k] == highspy.HighsVarType.kInteger for k in place] == milp.integer.tolist()
    assert set(milp.matrix.data.tolist()) == set(lp.a_matrix_.value_)  # none is below what HiGHS ignores
    assert set(milp.row_upper.tolist()) == set(lp.row_upper_)
    assert lp.row_names_ == program.rows


@pytest.mark.parametrize("convolutional", [False, True])
def test_names_tell_layer_and_unit_and_stable_units_have_no_binary(convolutional: bool) -> None:
    rng = np.random.default_rng(3)
    network = nets.convolutional(rng) if convolutional else nets.dense(rng)
    radius = 0.02 if convolutional else 0.15
    x = rng.normal(size=(200, *network.input_shape)) * radius + rng.normal(size=network.input_shape)
    inputs = Box.from_floats(x.min(axis=0).reshape(-1), x.max(axis=0).reshape(-1))
    program = network_program(network, inputs)
    at = {name: k for k, name in enumerate(program.columns)}
    assert len(at) == len(program.columns)
    assert len(set(program.rows)) == len(program.rows)
    values = network.values(x)
    seen = set()
    for relu in network.relus:
        before = values[network.relu_source(relu)].reshape(len(x), -1)
        for unit in np.flatnonzero((before < 0).any(axis=0) & (before > 0).any(axis=0)):
            seen.add(f"active{relu}_{unit}")
    binaries = {program.columns[k] for k in np.flatnonzero(program.milp.integer)}
    assert seen <= binaries
    assert {name.split("_")[0] for name in binaries} == {f"active{relu}" for relu in network.relus}
    box = (side.reshape(1, *network.input_shape) for side in (inputs.lower, inputs.upper))
    by_interval = encode(network, interval(network, *box))
    assert len(binaries) < by_interval.binaries
    for name, k in at.items():  # all values of a unit lie between the bounds of the column that has its name
        kind, unit = name.split("_")
        if kind.startswith(("layer", "relu")):
            value = values[int(kind.removeprefix("layer").removeprefix("relu"))].reshape(len(x), -1)[:, int(unit)]
            slack = 1e-9 * (1 + np.abs(value).max())
            assert (program.milp.lower[k] <= value + slack).all(), name
            assert (value - slack <= program.milp.upper[k]).all(), name


def test_one_condition_needs_no_choice() -> None:
    network, case = question(1)
    program = case_program(network, Case(case.inputs, case.conditions[:1]))
    assert not any(name.startswith("chosen") for name in program.columns)
    assert program.columns[int(np.flatnonzero(program.milp.objective)[0])] == "margin_0"


def test_a_curved_set_is_refused() -> None:
    network = nets.dense(np.random.default_rng(0))
    asked = robustness(np.full(5, 0.5), 0, "0.1", num_classes=4, norm="l2")
    with pytest.raises(InputError, match="curved"):
        network_program(network, asked.cases[0].inputs)
