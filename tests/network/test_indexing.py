"""Operators that pick, place and sum entries by constants mean what ONNX Runtime computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mipverify.errors import InputError
from mipverify.network import load
from tests.network.graphs import Graph, agrees

QUICK = settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
Draw = Callable[[Any], Any]
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(lambda sizes: [2, *sizes])
TYPES = st.sampled_from([np.float32, np.float64])


def _graph(draw: Draw, shape: Any, oldest: int) -> Graph:
    opset = draw(st.sampled_from([version for version in (9, 10, 11, 13, 16, 18, 21) if version >= oldest]))
    return Graph(shape, opset=opset, dtype=draw(TYPES), seed=draw(st.integers(0, 99)))


def _indices(g: Graph, sizes: list[int], shape: tuple[int, ...]) -> np.ndarray:
    """Random indices (*shape, k) into axes of `sizes` (k,), some negative."""
    return np.stack([g.rng.integers(-size, size, size=shape) for size in sizes], axis=-1)


def build_gather_elements(draw: Draw) -> tuple[Graph, str]:
    shape = draw(SHAPES)
    g = _graph(draw, shape, 11)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    sizes = [draw(st.integers(1, size)) for size in shape]
    sizes[axis] = draw(st.integers(1, 5))
    return g, g.node(
        "GatherElements", ["x", g.constant(g.rng.integers(-shape[axis], shape[axis], sizes), np.int64)], axis=axis
    )


def build_gather_nd(draw: Draw) -> tuple[Graph, str]:
    shape = draw(SHAPES)
    g = _graph(draw, shape, 12)
    batch = draw(st.integers(0, len(shape) - 1))
    depth = draw(st.integers(1, len(shape) - batch))
    lead = (*shape[:batch], *draw(st.lists(st.integers(1, 3), max_size=2)))
    indices = _indices(g, shape[batch : batch + depth], lead)
    return g, g.node("GatherND", ["x", g.constant(indices, np.int64)], batch_dims=batch)


def build_scatter(draw: Draw) -> tuple[Graph, str]:
    shape = draw(SHAPES)
    g = _graph(draw, shape, 11)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    sizes = [draw(st.integers(1, size)) for size in shape]
    order = np.argsort(g.rng.random(shape), axis=axis)  # each place at most once
    indices = g.constant(order[tuple(slice(size) for size in sizes)], np.int64)
    return g, _scattered(draw, g, "ScatterElements", indices, sizes, axis=axis)


def build_scatter_nd(draw: Draw) -> tuple[Graph, str]:
    shape = draw(SHAPES)
    g = _graph(draw, shape, 11)
    depth = draw(st.integers(1, len(shape)))
    places = np.argwhere(np.ones(shape[:depth]))
    picked = g.rng.permutation(places)[: draw(st.integers(1, len(places)))]
    return g, _scattered(draw, g, "ScatterND", g.constant(picked, np.int64), [len(picked), *shape[depth:]])


def _scattered(draw: Draw, g: Graph, operator: str, indices: str, sizes: list[int], **options: Any) -> str:
    size = int(np.prod(sizes))
    moved = g.node("Reshape", ["x", g.constant([-1], np.int64)])
    take = g.constant(g.rng.integers(0, int(np.prod(g.shape)), size), np.int64)  # type: ignore[arg-type]
    moved = g.node("Reshape", [g.node("Gather", [moved, take]), g.constant(sizes, np.int64)])
    constant, data = g.random(*sizes), g.random(*g.shape)  # type: ignore[arg-type]
    data, updates = draw(st.sampled_from([("x", moved), ("x", constant), (data, moved)]))
    if g.opset >= 16 and draw(st.booleans()):
        options["reduction"] = "add"
    return str(g.node(operator, [data, indices, updates], **options))


def build_mask(draw: Draw) -> tuple[Graph, str]:
    shape = draw(SHAPES)
    g = _graph(draw, shape, 9)
    sizes = [size if draw(st.booleans()) else 1 for size in shape]
    mask = g.constant(g.rng.random(sizes) < 0.5, np.bool_)
    other = draw(st.sampled_from([g.node("Neg", ["x"]), g.random(shape[-1]), g.constant(0.25)]))
    return g, g.node("Where", [mask, *draw(st.permutations(["x", other]))])


def build_infinite_mask(draw: Draw) -> tuple[Graph, str]:
    """As exporters mask attention; what is not selected may be infinite."""
    g = _graph(draw, [2, 3], 13)
    mask = g.rng.random((2, 3)) < 0.5
    return g, g.node("Where", [g.constant(mask, np.bool_), "x", g.constant(np.where(mask, -np.inf, 1.0))])


def build_triangle(draw: Draw) -> tuple[Graph, str]:
    shape = [*draw(SHAPES), 3]
    g = _graph(draw, shape, 14)
    inputs = ["x"] if draw(st.booleans()) else ["x", g.constant(draw(st.integers(-3, 3)), np.int64)]
    return g, g.node("Trilu", inputs, upper=draw(st.integers(0, 1)))


def build_compress(draw: Draw) -> tuple[Graph, str]:
    shape = draw(SHAPES)
    g = _graph(draw, shape, 9)
    axis = draw(st.one_of(st.none(), st.integers(-len(shape), len(shape) - 1)))
    size = int(np.prod(shape)) if axis is None else shape[axis]
    mask = g.rng.random(draw(st.integers(1, size + 2))) < 0.5
    mask[0] = True
    mask = mask.reshape(draw(st.sampled_from([(-1,), (1, -1)])))
    return g, g.node("Compress", ["x", g.constant(mask, np.bool_)], **({} if axis is None else {"axis": axis}))


def build_reverse_sequence(draw: Draw) -> tuple[Graph, str]:
    g = _graph(draw, [3, 4, 2], 10)
    batch = draw(st.integers(0, 1))
    lengths = g.rng.integers(1, 5 if batch == 0 else 4, size=3 if batch == 0 else 4)
    return g, g.node("ReverseSequence", ["x", g.constant(lengths, np.int64)], batch_axis=batch, time_axis=1 - batch)


def build_blocks(draw: Draw) -> tuple[Graph, str]:
    block = draw(st.integers(1, 3))
    if draw(st.booleans()):
        g = _graph(draw, [1, 2 * block**2, 2, 3], 11)
        return g, g.node("DepthToSpace", ["x"], blocksize=block, mode=draw(st.sampled_from(["DCR", "CRD"])))
    g = _graph(draw, [1, 2, 2 * block, 3 * block], 9)
    return g, g.node("SpaceToDepth", ["x"], blocksize=block)


def build_center(draw: Draw) -> tuple[Graph, str]:
    g = _graph(draw, [3, 4, 5], 18)
    wanted = [draw(st.integers(1, 8)) for _ in range(2)]
    return g, g.node(
        "CenterCropPad", ["x", g.constant(wanted, np.int64)], axes=draw(st.sampled_from([[0, 1], [-1, 0]]))
    )


def build_computed_indices(draw: Draw) -> tuple[Graph, str]:
    """The last entries of an axis, their places computed from the shape, as exporters do."""
    shape = draw(SHAPES)
    g = _graph(draw, shape, 13)
    last = g.node(
        "Sub", [g.node("Gather", [g.node("Shape", ["x"]), g.constant(-1, np.int64)]), g.constant(1, np.int64)]
    )
    start = g.node("Min", [last, g.constant(1, np.int64)]) if g.opset >= 13 else last
    indices = g.node("Range", [start, g.node("Add", [last, g.constant(1, np.int64)]), g.constant(1, np.int64)])
    return g, g.node("Gather", ["x", indices], axis=-1)


def build_cumulative_sum(draw: Draw) -> tuple[Graph, str]:
    shape = [*draw(SHAPES), draw(st.integers(1, 9))]
    g = _graph(draw, shape, 11)
    axis = g.constant(draw(st.integers(-len(shape), len(shape) - 1)), np.int64)
    options = {"exclusive": draw(st.integers(0, 1)), "reverse": draw(st.integers(0, 1))}
    return g, g.node("CumSum", ["x", axis], **options)


EQUATIONS = [
    ("ij->ji", [(2, 3)]),
    ("ii->i", [(3, 3)]),
    ("ij->", [(2, 3)]),
    ("ij->i", [(2, 3)]),
    ("bij", [(2, 3, 2)]),
    ("ba", [(2, 3)]),
    ("ij,jk->ik", [(2, 3), (3, 4)]),
    ("ij,jk", [(2, 3), (3, 4)]),
    ("ij,ij->ij", [(2, 3), (2, 3)]),
    ("ij,ij->", [(2, 3), (2, 3)]),
    ("i,j->ij", [(2,), (3,)]),
    ("bhwc,hkc->bhwk", [(1, 2, 3, 4), (2, 3, 4)]),
    ("bij,bjk->bik", [(2, 3, 4), (2, 4, 2)]),
    ("...ij,jk->...ik", [(2, 2, 3), (3, 4)]),
    ("...ij,...jk->...ik", [(2, 2, 3), (2, 3, 4)]),
    ("ij,kj->k i", [(2, 3), (4, 3)]),
    ("ijk,k->ij", [(2, 2, 3), (3,)]),
    ("ijk,jil->kl", [(2, 3, 2), (3, 2, 4)]),
    ("ij,,jk->ki", [(2, 3), (), (3, 2)]),
    ("ij,j,jk->ik", [(2, 3), (3,), (3, 2)]),
]


def build_einsum(draw: Draw) -> tuple[Graph, str]:
    equation, shapes = draw(st.sampled_from(EQUATIONS))
    place = draw(st.integers(0, len(shapes) - 1))
    place = place if shapes[place] else 0
    g = Graph(shapes[place], opset=draw(st.sampled_from([12, 18])))
    return g, g.node("Einsum", ["x" if i == place else g.random(*s) for i, s in enumerate(shapes)], equation=equation)


BUILDERS = {
    name.removeprefix("build_"): function for name, function in globals().copy().items() if name[:6] == "build_"
}


@pytest.mark.parametrize("name", BUILDERS)
def test_means_what_onnx_runtime_computes(name: str, tmp_path: Path) -> None:
    @QUICK
    @given(st.data())
    def check(data: st.DataObject) -> None:
        graph, output = BUILDERS[name](data.draw)
        agrees(graph, output, tmp_path / "net.onnx")

    check()


@pytest.mark.parametrize("equation", [equation for equation, _ in EQUATIONS])
def test_every_equation(equation: str, tmp_path: Path) -> None:
    shapes = dict(EQUATIONS)[equation]
    for place in [i for i, shape in enumerate(shapes) if shape]:
        g = Graph(shapes[place])
        inputs = ["x" if i == place else g.random(*shape) for i, shape in enumerate(shapes)]
        agrees(g, g.node("Einsum", inputs, equation=equation), tmp_path / "net.onnx")


def test_long_sums_stay_sparse(tmp_path: Path) -> None:
    g = Graph([1, 4096])
    network = agrees(g, g.node("CumSum", ["x", g.constant(1, np.int64)]), tmp_path / "net.onnx", samples=1)
    assert len(network.nodes) < 16
    assert not any(p.size > 4096 for node in network.nodes[1:] for t in node.terms for p in t.operator.parameters())


REFUSED: dict[str, tuple[str, list[Any], dict[str, Any], str]] = {
    "an index out of range": ("GatherElements", [[[2, 0]]], {"axis": 1}, "index is out of range"),
    "a place twice": ("ScatterElements", [[[0, 0]], np.ones((1, 2), np.float32)], {"axis": 1}, "same place"),
    "another reduction": ("ScatterElements", [[[0]], np.ones((1, 1), np.float32)], {"reduction": "mul"}, "reduction"),
    "two inputs of an equation": ("Einsum", ["x"], {"equation": "ij,ij->ij"}, "product of two tensors"),
    "a sum of constants": (
        "Einsum",
        [np.ones((2, 3), np.float32)],
        {"equation": "ij,jk->i"},
        "sums over an axis of constants",
    ),
    "pads that leave nothing": ("Pad", [[0, -2, 0, 1]], {}, "leave nothing"),
    "blocks that do not fit": ("DepthToSpace", [], {"blocksize": 2}, "four axes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    operator, constants, options, message = REFUSED[name]
    g = Graph([1, 2])
    inputs = [c if isinstance(c, str) else g.constant(c, getattr(c, "dtype", np.int64)) for c in constants]
    with pytest.raises(InputError, match=f"operator {operator} .*{message}"):
        load(g.save(tmp_path / "net.onnx", g.node(operator, ["x", *inputs], **options)))
