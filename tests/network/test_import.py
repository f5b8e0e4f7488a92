"""Whole graphs: random DAGs, exactness of the rewriting, structure, replay, description, start-up."""

from __future__ import annotations

import gzip
import hashlib
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from mipverify.network import Affine, Input, Network, Relu, load
from mipverify.network.convolution import Conv
from mipverify.network.describe import describe
from mipverify.network.operators import Dense, Identity, Index, Scale
from mipverify.network.replay import OnnxRuntimeReplay
from tests.network.graphs import Graph, agrees, runtime

QUICK = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def random_graph(data: st.DataObject, integers: bool) -> tuple[Graph, str]:
    """A DAG over tensors (1, 6): skip connections, several uses of a tensor, concatenations, splits."""
    g = Graph([1, 6], seed=data.draw(st.integers(0, 1000)), opset=13)

    def constant(*shape: int) -> str:
        return g.constant(g.rng.integers(-2, 3, size=shape)) if integers else g.random(*shape)

    tensors = ["x"]
    for _ in range(data.draw(st.integers(1, 10))):
        a, b = data.draw(st.sampled_from(tensors)), data.draw(st.sampled_from(tensors))
        kind = data.draw(
            st.sampled_from(
                ["dense", "relu", "add", "sub", "mix", "leaky", "max", "bias", "clip", "conv", "pool", "flip"]
            )
        )
        if kind == "dense":
            tensors.append(g.node("Gemm", [a, constant(6, 6), constant(6)]))
        elif kind == "relu":
            tensors.append(g.node("Relu", [a]))
        elif kind == "leaky":
            tensors.append(g.node("LeakyRelu", [a], alpha=0.5))
        elif kind in ("add", "sub", "max"):
            tensors.append(g.node(kind.capitalize(), [a, b]))
        elif kind == "bias":
            tensors.append(g.node("Add", [a, constant(6)]))
        elif kind == "clip":
            tensors.append(g.node("Clip", [a, g.constant(-1), g.constant(2)]))
        elif kind == "mix":
            left, right = g.node("Split", [a], outputs=2, axis=1)
            tensors.append(g.node("Concat", [right, g.node("Relu", [left])], axis=1))
        elif kind == "flip":
            square = g.node("Reshape", [a, g.constant([1, 2, 3], np.int64)])
            tensors.append(g.node("Flatten", [g.node("Transpose", [square], perm=[0, 2, 1])]))
        else:
            image = g.node("Reshape", [a, g.constant([1, 1, 2, 3], np.int64)])
            if kind == "conv":
                image = g.node("Conv", [image, constant(1, 1, 3, 3)], pads=[1, 1, 1, 1])
            else:
                image = g.node("MaxPool", [image], kernel_shape=[2, 2], pads=[0, 0, 1, 1])
            tensors.append(g.node("Flatten", [image]))
    return g, tensors[-1]


@QUICK
@given(st.data())
def test_random_graphs(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    g, output = random_graph(data, integers=False)
    agrees(g, output, tmp_path_factory.mktemp("dag") / "net.onnx", scale=1.0)


@QUICK
@given(st.data())
def test_rewriting_is_lossless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """On small integers float64 is exact, and so must the network be."""
    g, output = random_graph(data, integers=True)
    network = load(g.save(tmp_path_factory.mktemp("exact") / "net.onnx", output))
    x = g.rng.integers(-3, 4, size=(1, 6)).astype(np.float32)
    values = network.values(x[None].astype(np.float64))
    if max(np.abs(value).max() for value in values) < 2**20:  # where ONNX Runtime, in float32, is exact as well
        assert (values[network.output][0] == runtime(g.model(output).SerializeToString(), x)).all()


def test_residual_sum_becomes_one_node(tmp_path: Path) -> None:
    g = Graph([1, 3])
    h = g.node("Relu", [g.node("Gemm", ["x", g.random(3, 3), g.random(3)])])
    left = g.node("Gemm", [h, g.random(3, 3), g.random(3)])
    y = g.node("Relu", [g.node("Add", [g.node("Add", [left, h]), g.random(3)])])
    network = agrees(g, y, tmp_path / "net.onnx")
    kinds = [type(node).__name__ for node in network.nodes]
    assert kinds == ["Input", "Affine", "Relu", "Affine", "Relu"]
    joined = network.nodes[3]
    assert isinstance(joined, Affine)
    assert {type(term.operator) for term in joined.terms} == {Dense, Identity}


def test_a_tensor_with_two_uses_is_not_duplicated(tmp_path: Path) -> None:
    g = Graph([1, 3])
    a = g.node("Gemm", ["x", g.random(3, 3)])
    network = agrees(g, g.node("Add", [a, g.node("Relu", [a])]), tmp_path / "net.onnx")
    assert sum(isinstance(t.operator, Dense) for n in network.nodes if isinstance(n, Affine) for t in n.terms) == 1


def test_a_bias_that_would_round_stays_apart(tmp_path: Path) -> None:
    g = Graph([1, 1])
    y = g.node("Add", [g.node("Add", ["x", g.constant([1e30])]), g.constant([1.0])])
    network = load(g.save(tmp_path / "net.onnx", y))
    assert [float(node.bias[0, 0]) for node in network.nodes[1:]] == [np.float32(1e30), 1.0]
    y = g.node("Add", [g.node("Add", ["x", g.constant([0.1])]), g.constant([3.0])])
    network = load(g.save(tmp_path / "net.onnx", y))
    assert len(network.nodes) == 2
    assert Fraction(float(network.nodes[1].bias[0, 0])) == Fraction(float(np.float32(0.1))) + 3


def test_weights_are_stored_as_they_are(tmp_path: Path) -> None:
    """No weight is multiplied by another: batch normalization stays apart, its rounded factor is accounted for."""
    g = Graph([1, 2, 5, 5])
    weight = g.random(3, 2, 3, 3)
    y = g.node("Conv", ["x", weight, g.random(3)])
    y = g.node("BatchNormalization", [y, *(g.random(3) for _ in range(3)), g.constant([0.5, 1, 2])])
    network = agrees(g, y, tmp_path / "net.onnx")
    operators = [t.operator for n in network.nodes if isinstance(n, Affine) for t in n.terms]
    assert [type(operator) for operator in operators] == [Conv, Scale]
    np.testing.assert_array_equal(operators[0].weight, numpy_helper.to_array(g.constants[0]))
    assert operators[1].terms == 5  # product, sum, root, quotient, and the cast where float32 is used


def test_products_with_alpha_are_exact(tmp_path: Path) -> None:
    """They need more digits than float32 has, and say so."""
    g = Graph([1, 3])
    weight = g.random(2, 3)
    network = agrees(g, g.node("Gemm", ["x", weight], transB=1, alpha=0.3), tmp_path / "net.onnx")
    operator = network.nodes[1].terms[0].operator
    exact = [Fraction(float(w)) * Fraction(float(np.float32(0.3))) for w in numpy_helper.to_array(g.constants[0]).flat]
    assert [Fraction(float(w)) for w in operator.weight.flat] == exact
    assert operator.terms == 4


def test_moving_data_twice_is_one_operator(tmp_path: Path) -> None:
    g = Graph([1, 2, 3, 4])
    y = g.node("Transpose", [g.node("Transpose", ["x"], perm=[0, 2, 3, 1])], perm=[0, 3, 1, 2])
    y = g.node("Relu", [g.node("Flatten", [y])])
    network = agrees(g, y, tmp_path / "net.onnx")
    assert [type(node) for node in network.nodes] == [Input, Relu, Affine]
    assert isinstance(network.nodes[2].terms[0].operator, Identity)  # the view that the file returns
    y = g.node("Slice", [y, g.constant([3], np.int64), g.constant([9], np.int64), g.constant([1], np.int64)])
    y = g.node("Gather", [y, g.constant([4, 1], np.int64)], axis=1)
    network = agrees(g, y, tmp_path / "net.onnx")
    assert [type(node) for node in network.nodes] == [Input, Relu, Affine]
    np.testing.assert_array_equal(network.nodes[2].terms[0].operator.indices, [7, 4])


def test_repeated_relus_are_merged(tmp_path: Path) -> None:
    g = Graph([1, 3])
    y = g.node("Add", [g.node("Relu", [g.node("Relu", ["x"])]), g.node("Relu", ["x"])])
    assert len(agrees(g, y, tmp_path / "net.onnx").relus) == 1


def test_dead_nodes_are_ignored_even_if_unsupported(tmp_path: Path) -> None:
    g = Graph([1, 3])
    g.node("Sin", ["x"])
    assert len(agrees(g, g.node("Relu", ["x"]), tmp_path / "net.onnx").nodes) == 2


def test_the_input_itself_as_output(tmp_path: Path) -> None:
    g = Graph([1, 3])
    assert agrees(g, g.node("Identity", ["x"]), tmp_path / "net.onnx").output == 0
    assert agrees(g, g.node("Unsqueeze", ["x", g.constant([0], np.int64)]), tmp_path / "net.onnx").output_shape == (
        1,
        1,
        3,
    )


def test_max_pool_has_a_relu_less_than_entries(tmp_path: Path) -> None:
    g = Graph([1, 2, 4, 4])
    network = agrees(g, g.node("MaxPool", ["x"], kernel_shape=[2, 2], strides=[2, 2]), tmp_path / "net.onnx")
    assert sum(math.prod(network.nodes[i].shape) for i in network.relus) == 3 * 2 * 2 * 2


@pytest.mark.parametrize(
    ("operator", "axis", "opset"),
    [("Softmax", -1, 13), ("Softmax", 1, 11), ("LogSoftmax", 1, 13), ("Sigmoid", None, 13)],
)
def test_ranking_at_the_end_is_dropped(operator: str, axis: int | None, opset: int, tmp_path: Path) -> None:
    g = Graph(["N", 4], opset=opset)
    logits = g.node("Gemm", ["x", g.random(4, 4)])
    y = g.node("Identity", [g.node(operator, [logits], **({} if axis is None else {"axis": axis}))])
    path = g.save(tmp_path / "net.onnx", y)
    network = load(path)
    assert network.order_only
    assert operator in network.notes[0]
    x = g.rng.normal(size=(6, 4)).astype(np.float32)
    original, ours = OnnxRuntimeReplay(path).run(x), network.forward(x[:, None])[:, 0]
    np.testing.assert_array_equal(original.argsort(1), ours.argsort(1))


def test_argmax_at_the_end_leaves_the_scores(tmp_path: Path) -> None:
    g = Graph([1, 4])
    path = g.save(tmp_path / "net.onnx", g.node("ArgMax", [g.node("Softmax", ["x"])], axis=1, keepdims=0))
    network = load(path)
    assert network.order_only
    assert network.output_shape == (1, 4)
    assert len(network.notes) == 2
    x = g.rng.normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(OnnxRuntimeReplay(path).run(x)[:, 0], network.forward(x[:, None])[:, 0].argmax(1))


@pytest.mark.parametrize("behind", ["Cast", "Flatten", "Squeeze", "Unsqueeze", "Reshape", "Identity"])
@pytest.mark.parametrize("declared", [["N"], [1], [1, 1], None])
def test_a_class_may_be_cast_and_reshaped(behind: str, declared: list[str | int] | None, tmp_path: Path) -> None:
    g = Graph(["N", 4])
    y = g.node("ArgMax", ["x"], axis=1, keepdims=int(behind == "Squeeze"))
    given = [g.constant([0 if behind == "Unsqueeze" else -1], np.int64)] if behind in ("Unsqueeze", "Reshape") else []
    model = g.model(g.node(behind, [y, *given], **({"to": onnx.TensorProto.FLOAT} if behind == "Cast" else {})))
    if declared is not None:
        kind = onnx.TensorProto.FLOAT if behind == "Cast" else onnx.TensorProto.INT64
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info(model.graph.output[0].name, kind, declared))
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    network = load(tmp_path / "net.onnx")
    assert network.dropped == ("ArgMax",)
    assert network.output_shape == (1, 4)


def test_plain_networks_are_not_order_only(tmp_path: Path) -> None:
    network = load(Graph([1, 2]).save(tmp_path / "net.onnx", "x"))
    assert not network.order_only
    assert network.notes == ()


def test_compressed_files_and_origin(tmp_path: Path) -> None:
    g = Graph([1, 3])
    plain = g.save(tmp_path / "net.onnx", g.node("Relu", ["x"]))
    packed = tmp_path / "net.onnx.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    network = load(packed)
    assert network.path == str(packed)
    assert network.sha256 == hashlib.sha256(packed.read_bytes()).hexdigest()
    assert network.input_name == "x"
    assert network.names == ("x", "node_0_Relu")
    x = np.array([[1, -1, 2]], dtype=np.float32)
    np.testing.assert_array_equal(OnnxRuntimeReplay(packed).run(x), [[1, 0, 2]])


@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("fixed_reshape", [False, True])
def test_replay_takes_any_batch(batch: str | int, fixed_reshape: bool, tmp_path: Path) -> None:
    g = Graph([batch, 2, 3])
    y = g.node("Reshape", ["x", g.constant([1, 6], np.int64)]) if fixed_reshape else g.node("Flatten", ["x"])
    path = g.save(tmp_path / "net.onnx", g.node("Gemm", [y, g.random(6, 2)]))
    x = g.rng.normal(size=(5, 6)).astype(np.float32)
    replay = OnnxRuntimeReplay(path)
    expected = load(path).forward(x.reshape(5, 1, 2, 3))[:, 0]
    assert replay.run(x).shape == (5, 2)
    np.testing.assert_allclose(replay.run(x), expected, atol=1e-5)
    assert len(replay.run(x[:0])) == 0


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    g = Graph([1, 3])
    model = g.model(g.node("Relu", ["x"]))
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("own", "Rectify", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[0].op_type, model.graph.node[0].domain = "Rectify", "own"
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    assert len(load(path).relus) == 1


def test_description_counts(tmp_path: Path) -> None:
    g = Graph([1, 1, 4, 4])
    y = g.node("Relu", [g.node("Conv", ["x", g.constant(np.r_[np.ones(8), 0].reshape(1, 1, 3, 3)), g.constant([2.0])])])
    y = g.node("Gemm", [g.node("Flatten", [y]), g.constant(np.ones((4, 3)))])
    table = describe(load(g.save(tmp_path / "net.onnx", y)))
    assert [(layer.kind, layer.shape, layer.parameters, layer.nonzeros) for layer in table.layers] == [
        ("Input", (1, 1, 4, 4), 0, 0),
        ("Conv", (1, 1, 2, 2), 10, 9),
        ("Relu", (1, 1, 2, 2), 0, 0),
        ("Dense", (1, 3), 12, 12),
    ]
    assert (table.inputs, table.outputs, table.relus, table.parameters, table.nonzeros) == (16, 3, 4, 22, 21)
    assert table.to_json()["layers"][1]["name"] == "node_0_Conv"


def test_a_network_checks_its_own_structure() -> None:
    with pytest.raises(ValueError, match="topological"):
        Network((Input((2,)), Relu((2,), 1)), 1)
    with pytest.raises(ValueError, match="does not take"):
        Network((Input((1, 2)), Relu((2,), 0)), 1)
    with pytest.raises(ValueError, match="exactly one input"):
        Network((Relu((2,), 0),), 0)


def test_importing_the_package_is_cheap() -> None:
    """Start-up must not pay for onnx, torch or scipy."""
    code = "import sys, mipverify.network; print(sorted({'onnx', 'onnxruntime', 'torch', 'scipy'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_an_index_operator_knows_repeats() -> None:
    assert Index(np.array([0, 0, 1]), (2,), (3,)).terms == 2


def test_a_constant_network(tmp_path: Path) -> None:
    g = Graph([1, 2])
    y = g.node("Cast", [g.node("Shape", ["x"])], to=onnx.TensorProto.FLOAT)
    network = agrees(g, y, tmp_path / "net.onnx")
    np.testing.assert_array_equal(network.forward(np.zeros((3, 1, 2))), [[1, 2]] * 3)
