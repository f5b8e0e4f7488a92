"""Proofs about float32 evaluations: what the checker charges for rounding, by its own reading of the file."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from mipverify.presolve import interval as verifier_interval
from mipverify_check import onnx_file, operators
from mipverify_check.answer import check
from mipverify_check.arithmetic import EXACT, FLOATS, Arithmetic
from mipverify_check.bounds import Evidence, aim, interval, least, ranges
from mipverify_check.errors import RejectedError
from mipverify_check.float32 import rounded
from mipverify_check.input_set import InputSet
from onnx import helper

from mipverify.engine import verify
from mipverify.network import load
from mipverify.network.deployed import deployed
from mipverify.specification import Specification, load_vnnlib
from tests.checker.making import model, property_text
from tests.network.graphs import Graph, runtime
from tests.proof.float32 import evaluations
from tests.proof.test_deployed import cancelling
from tests.soundness.test_deployed import rounding_network


def convolutional(folder: Path, seed: int) -> Path:
    """Convolutions with batch normalization, a residual sum, pooling and clipping."""
    graph = Graph([1, 2, 6, 6], seed)
    x = graph.node("Conv", ["x", graph.random(4, 2, 3, 3), graph.random(4)], pads=[1, 1, 1, 1])
    numbers = [graph.random(4), graph.random(4), graph.random(4), graph.constant(graph.rng.uniform(0.5, 2, 4))]
    x = graph.node("Relu", [graph.node("BatchNormalization", [x, *numbers])])
    y = graph.node("Conv", [x, graph.random(4, 4, 3, 3)], pads=[1, 1, 1, 1])
    x = graph.node("LeakyRelu", [graph.node("Add", [x, y])], alpha=0.1)
    x = graph.node("AveragePool", [x], kernel_shape=[3, 3], strides=[3, 3])
    x = graph.node("MaxPool", [x], kernel_shape=[2, 1])
    x = graph.node("Flatten", [graph.node("Clip", [x, graph.constant(-3), graph.constant(30)])])
    x = graph.node("Sub", [graph.node("Mul", [x, graph.random(8)]), graph.random(8)])
    return graph.save(folder / "net.onnx", graph.node("Gemm", [x, graph.random(8, 2), graph.random(2)]))


def network_and_bounds(path: Path, x: np.ndarray, arithmetic: Arithmetic = FLOATS):
    """The checker's network of float32 evaluations, and its bounds at one point (1, ...)."""
    network = rounded(operators.lowered(onnx_file.read(str(path)), arithmetic))
    point = arithmetic.array(x.reshape(-1, 1).astype(np.float64))
    return network, interval(network, InputSet(arithmetic, point, point))


@pytest.mark.parametrize("seed", range(6))
def test_no_evaluation_leaves_bounds(tmp_path: Path, seed: int) -> None:
    """ONNX Runtime's values and those of random orders, beside intervals and passes at one point."""
    graph, output = cancelling(seed)
    path = graph.save(tmp_path / "net.onnx", output) if seed % 2 else convolutional(tmp_path, seed)
    network = deployed(load(path))
    x = np.random.default_rng(seed).normal(size=(1, *network.input_shape[1:])).astype(np.float32)
    scores = evaluations(network, np.repeat(x.reshape(1, -1), 60, 0), np.random.default_rng(seed))[network.output]
    scores = np.concatenate([scores, runtime(path.read_bytes(), x).reshape(1, -1)])
    own, bounds = network_and_bounds(path, x)
    node, units = own.output.node, np.arange(own.output.size)
    low, high = ranges(bounds, aim(node, units))
    both = [(bounds.lower[node][:, 0], bounds.upper[node][:, 0]), (low, high)]
    both.append((least(bounds, aim(node, units), Evidence("adaptive")), high))
    for lower, upper in both:
        assert (scores >= lower).all()
        assert (scores <= upper).all()
    exact = operators.lowered(onnx_file.read(str(path)), FLOATS)
    point = x.reshape(-1, 1).astype(np.float64)
    real = interval(exact, InputSet(FLOATS, point, point))
    low, high = real.lower[exact.output.node][:, 0], real.upper[exact.output.node][:, 0]
    assert ((scores < low) | (scores > high)).any(), "evaluations that all are exact would show no fault"


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_charged_where_they_begin_and_where_they_pass(tmp_path: Path, seed: int) -> None:
    """Rounding of a layer whose sums cancel, in rows of its own units, and in those of a layer that hardly rounds."""
    graph = Graph([1, 8], seed)
    weight = np.repeat(graph.rng.normal(size=(4, 5)) * 300, 2, axis=0)
    weight[1::2] *= -1
    first = graph.node("MatMul", ["x", graph.constant(weight)])
    x = graph.node("Relu", [graph.node("Add", [first, graph.constant(np.full(5, 2))])])
    path = graph.save(tmp_path / "net.onnx", graph.node("MatMul", [x, graph.random(5, 2)]))
    network = deployed(load(path))
    point = np.repeat(graph.rng.normal(size=(1, 4)), 2, axis=1).astype(np.float32)
    values = evaluations(network, np.repeat(point, 200, 0), graph.rng)
    own, bounds = network_and_bounds(path, point)
    hidden = own.nodes[own.relus["relu2_0"][0]].source
    for node, found in ((hidden, values[network.preactivations[0]]), (own.output.node, values[network.output])):
        assert np.ptp(found) > 1e-5
        units = np.arange(own.nodes[node].size)
        low, high = ranges(bounds, aim(node, units))
        below = least(bounds, aim(node, units), Evidence("adaptive"))
        above = -least(bounds, aim(node, units, -1), Evidence("adaptive"))
        for lower, upper in ((low, high), (below, above)):
            assert (found >= lower).all()
            assert (found <= upper).all()


def test_rational_numbers_charge_the_same(tmp_path: Path) -> None:
    graph, output = cancelling(1)
    path = graph.save(tmp_path / "net.onnx", output)
    x = np.random.default_rng(1).normal(size=(1, 6)).astype(np.float32)
    pairs = [network_and_bounds(path, x, arithmetic)[1] for arithmetic in (FLOATS, EXACT)]
    assert pairs[0].deviations.keys() == pairs[1].deviations.keys()
    for k, one in pairs[0].deviations.items():
        np.testing.assert_allclose(pairs[1].deviations[k].astype(np.float64), one, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_verifier_charges_no_less(tmp_path: Path, seed: int) -> None:
    """What it proves must be accepted: its errors are at least the checker's."""
    path = convolutional(tmp_path, seed)
    network = deployed(load(path))
    x = np.random.default_rng(seed).normal(size=(1, 2, 6, 6)).astype(np.float32)
    bounds = verifier_interval(network, x.astype(np.float64), x.astype(np.float64))
    ours = bounds.deviation(network.output).reshape(-1)
    own, theirs = network_and_bounds(path, x)
    assert (ours >= theirs.deviations[own.output.node][:, 0]).all()
    assert (ours <= 2 * theirs.deviations[own.output.node][:, 0]).all()


def proof_of(network: Path, asked: Specification, arithmetic: str) -> bytes | None:
    verdict = verify(load(network), asked, arithmetic=arithmetic, proof=True, timeout=20)
    return None if verdict.proof is None else verdict.proof.to_bytes()


def with_arithmetic(proof: bytes, arithmetic: str) -> bytes:
    """The proof with another word in its header."""
    with np.load(io.BytesIO(proof)) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays["header"].tobytes())
    header["arithmetic"] = arithmetic
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def checked(proof: bytes, network: Path, asked: Path, arithmetic: Arithmetic = FLOATS) -> str:
    file = onnx_file.read(str(network))
    return str(check(proof, operators.lowered(file, arithmetic), file.sha256, str(asked)))


def test_proofs_of_float32_are_verified(tmp_path: Path) -> None:
    """By interval arithmetic, passes and boxes or phases, of a network with all kinds of blocks."""
    path = convolutional(tmp_path, 1)
    asked = tmp_path / "property.vnnlib"
    center = np.random.default_rng(5).normal(size=72)
    value = runtime(path.read_bytes(), center.reshape(1, 2, 6, 6).astype(np.float32)).reshape(-1)[0]
    box = [(f"{v - 0.001:.6f}", f"{v + 0.001:.6f}") for v in center]
    for slack in (0.05, 0.5, 5.0):
        asked.write_text(property_text(72, 2, box, f"(<= Y_0 {value - slack:.6f})"))
        proof = proof_of(path, load_vnnlib(asked), "float32")
        if proof is not None:
            assert checked(proof, path, asked).startswith("of every float32 evaluation, the property ")
            return
    pytest.fail("nothing was proven")


def test_a_proof_of_real_numbers_is_none_of_float32(tmp_path: Path) -> None:
    path = rounding_network(tmp_path / "net.onnx")
    asked = tmp_path / "property.vnnlib"
    asked.write_text(property_text(2, 2, [("0.6", "0.9")] * 2, "(<= Y_0 0.5)"))
    proof = proof_of(path, load_vnnlib(asked), "real")
    assert proof is not None
    for arithmetic in (FLOATS, EXACT):
        assert checked(proof, path, asked, arithmetic).startswith("the property ")
        with pytest.raises(RejectedError, match="only shown to be above"):
            checked(with_arithmetic(proof, "float32"), path, asked, arithmetic)
    with pytest.raises(RejectedError, match="arithmetic is not known"):
        checked(with_arithmetic(proof, "float16"), path, asked)


def test_inputs_that_stand_for_others_are_covered(tmp_path: Path) -> None:
    """Between 0.1 and 0.1 lies no float32: the nearest one is what a runtime gets."""
    graph = Graph([1, 2])
    path = graph.save(tmp_path / "net.onnx", graph.node("MatMul", ["x", graph.constant(np.eye(2))]))
    asked = tmp_path / "property.vnnlib"
    asked.write_text(property_text(2, 2, [("0.1", "0.1"), ("0", "1")], "(<= Y_0 0.05)"))
    good = proof_of(path, load_vnnlib(asked), "float32")
    assert good is not None
    assert "every float32" in checked(good, path, asked)
    with np.load(io.BytesIO(good)) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays["header"].tobytes())
    table = header["cases"][0]["box"]["table"]
    narrow = np.array([[np.nextafter(0.1, 0), np.nextafter(0.1, 1)], [0.0, 1.0]])
    arrays[table], arrays[header["cases"][0]["box"]["which"]] = narrow, np.array([0, 1], np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    with pytest.raises(RejectedError, match="no case of the proof covers"):
        checked(stream.getvalue(), path, asked)
    assert checked(with_arithmetic(stream.getvalue(), "real"), path, asked).startswith("the property")


def test_operators_of_unknown_rounding_are_refused(tmp_path: Path) -> None:
    """Each is fine in real numbers."""
    one = {"c": np.ones(2, np.float32)}
    cast = [helper.make_node("Cast", ["x"], ["z"], to=onnx.TensorProto.DOUBLE)]
    cast += [helper.make_node("Mul", ["z", "d"], ["w"]), helper.make_node("Cast", ["w"], ["y"], to=1)]
    large = [helper.make_node("Mul", ["x", "c"], ["y"])]
    softmax = [helper.make_node("Mul", ["x", "c"], ["z"]), helper.make_node("Softmax", ["z"], ["y"])]
    for nodes, constants in (
        (cast, {"d": np.ones(2)}),
        (large, {"c": np.full(2, 1e30, np.float32)}),
        (softmax, one),
    ):
        onnx.save(model(nodes, constants, [1, 2]), tmp_path / "net.onnx")
        network = operators.lowered(onnx_file.read(str(tmp_path / "net.onnx")), FLOATS)
        with pytest.raises(RejectedError, match="about float32"):
            rounded(network)
    known = dataclasses.replace(network, unrounded=None)
    assert rounded(known).nodes


def test_large_numbers_are_not_bounded(tmp_path: Path) -> None:
    onnx.save(
        model([helper.make_node("Mul", ["x", "c"], ["y"])], {"c": np.full(2, 1e15, np.float32)}, [1, 2]), tmp_path / "n"
    )
    network = rounded(operators.lowered(onnx_file.read(str(tmp_path / "n")), FLOATS))
    ends = np.array([[1e10], [1e10]])
    bounds = interval(network, InputSet(FLOATS, -ends, ends))
    assert np.isinf(bounds.upper[-1]).all()
    assert np.isinf(bounds.lower[-1]).all()
