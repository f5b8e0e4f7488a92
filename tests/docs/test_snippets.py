"""Every Python snippet of README and docs runs, as it stands there, in an interpreter that has imported nothing else.

The snippets of a document are one session: they run in their order, in a folder that holds the files they speak of.
What a document takes for given, such as a network of the reader's own, is stated in `GIVEN`.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.benchmark.conftest import write_network, write_property
from tests.cli.files import vnnlib

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
FENCED = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
OTHER_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:^ {4}.*\n|^\n(?= {4}))+", re.MULTILINE)

DATA = """
import shutil
import mipverify
shutil.copy("fitted.onnx", "net.onnx")  # decided at once
network = mipverify.load("net.onnx")
data = mipverify.load_dataset("mnist_test.npz").fit_to(network.input_shape)
image, label, other = data.image(8), data.label(8), data.image(9)
"""

MODULE = """
import torch
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
with torch.no_grad():
    import mipverify
    fitted = mipverify.load("fitted.onnx")
    unit = torch.eye(784, dtype=torch.float64).numpy().reshape(784, 1, 28, 28)
    model[1].weight.copy_(torch.from_numpy(fitted.forward(unit).reshape(784, 10).T))
    model[1].bias.zero_()
torch.save(model, "model.pt")
"""

NEEDED = {"docs/results.md": "pandas and matplotlib"}  # beside what the code names

GIVEN = {
    "README.md": MODULE,
    "CONTRIBUTING.md": """
from collections.abc import Iterator
from dataclasses import dataclass
import numpy as np
from mipverify.network.builder import Builder, Tensor
from mipverify.network.rewrites.registry import OnnxNode, rewrite
from mipverify.proof.backward import Evidence, both, row_minimum
from mipverify.proof.bounds import Bounds
from mipverify.proof.facts import UnitBounds
from mipverify.proof.rows import unit_rows
from mipverify.engine.problem import Problem
from mipverify.engine.stage import Stage, Work
from mipverify.engine.state import State
from mipverify.report.columns import INTEGER, REAL, Column, Shown
def share(sample):
    return None
""",
    "docs/compare.md": DATA,
    "docs/curves.md": DATA,
    "docs/data.md": 'import mipverify\nnetwork = mipverify.load("colors.onnx")\n',
    "docs/distances.md": DATA,
    "docs/sessions.md": DATA,
    "docs/training.md": """
import torch
from torch.nn.functional import cross_entropy
input_shape = (4,)
model = torch.nn.Sequential(
    torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
loader = [(torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1]))] * 2
""",
}
AFTER = {  # what shows that the snippets have done what they say
    "CONTRIBUTING.md": """
import mipverify
from mipverify.engine.stage import Budget
from mipverify.engine.schedule import INTERVAL
asked = mipverify.load_vnnlib("property.vnnlib")
sampling = Sampling(name="sampling", budget=Budget(share=0.05))
found = mipverify.verify(mipverify.load("net.onnx"), asked, timeout=2, stages=(INTERVAL, sampling))
assert found.verdict in ("holds", "unknown")

from mipverify.presolve import interval
from mipverify.presolve.layers import tighten_by_layer
network = mipverify.load("net.onnx")
x = np.random.default_rng(0).random((20, 1, *network.input_shape))
bounds = interval(network, x[0] - 0.3, x[0] + 0.3)
tight = tighten_by_layer(bounds, find)
widths = [sum((b.upper[n] - b.lower[n]).sum() for n in network.preactivations) for b in (tight, bounds)]
assert widths[0] < widths[1]
for node, value in enumerate(network.values((x[0] + 0.6 * (x[1:] - 0.5)).reshape(19, *network.input_shape))):
    assert (tight.lower[node] <= value + 1e-9).all() and (value - 1e-9 <= tight.upper[node]).all()
""",
    "docs/benchmark.md": "assert len(result.outcomes) == 2\n",
    "docs/curves.md": 'assert curve.radii == ("0.02", "0.05", "0.1")\n',
    "docs/data.md": "assert mipverify.verify(network, asked, timeout=10).verdict\n",
    "docs/distances.md": "assert worst.lower <= worst.upper and found.lower <= found.upper\n",
    "docs/export.md": 'assert pulp.LpStatus[model.status] == "Optimal"\n',
    "docs/sessions.md": "assert {answer.verdict for answer in answers} <= {'holds', 'violated'}\n",
    "docs/training.md": "assert traced.centered and all(bool(p.isfinite().all()) for p in model.parameters())\n",
    "docs/vnnlib.md": 'assert verdict.verdict == "violated"\n',
}
PRINTED = {  # first words of lines
    "README.md": ["violated", "AccuracyResult(10"],
    "docs/command-line.md": ["holds", "holds"],
}
ELSEWHERE = {"docs/cluster.md": "clusters of Dask that are not at hand here"}


def snippets(text: str) -> Iterator[str]:
    """Blocks of a document that are Python, in order; commands are none."""
    plain = OTHER_FENCED.sub("", text)
    for block in (*FENCED.findall(text), *map(textwrap.dedent, INDENTED.findall(plain))):
        try:
            ast.parse(block)
        except SyntaxError:
            continue
        if block.strip():
            yield block


def sessions() -> dict[str, str]:
    found = {name: "\n".join(snippets((ROOT / name).read_text())) for name in DOCUMENTS}
    return {name: code for name, code in found.items() if code}


def write_linear(path: Path, shape: tuple[int, ...], weights: np.ndarray) -> None:
    """y = relu(x) @ weights (inputs, outputs) for inputs of a shape."""
    nodes = [("Flatten", ["x"], "f"), ("Relu", ["f"], "r"), ("Gemm", ["r", "w"], "y")]
    graph = helper.make_graph(
        [helper.make_node(kind, given, [made]) for kind, given, made in nodes],
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, weights.shape[1]])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


TWO = """(vnnlib-version <2.0>)
(declare-network f (declare-input X float32 [1,2]) (declare-output Y float32 [1,2]))
(declare-network g (isomorphic-to f) (declare-input U float32 [1,2]) (declare-output V float32 [1,2]))
(assert (and (>= X[0,0] 0.0) (<= X[0,0] 1.0) (>= X[0,1] 0.0) (<= X[0,1] 1.0)))
(assert (and (== X[0,0] U[0,0]) (== X[0,1] U[0,1]) (>= V[0,0] (+ Y[0,0] 0.25))))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the documents speak of."""
    place, zoo = tmp_path_factory.mktemp("documents"), files("mipverify.models.zoo")
    shutil.copy(str(zoo / "mnist_small_linf0.1.onnx"), place / "net.onnx")
    shutil.copy(str(zoo / "mnist_100.npz"), place / "mnist_test.npz")
    (place / "property.vnnlib").write_text(vnnlib(784, 10, "0", "0.01", "(>= Y_0 100)"))
    rng = np.random.default_rng(1)
    with np.load(place / "mnist_test.npz") as known:
        images, labels = known["images"].reshape(100, 784) / 255, np.eye(10)[known["labels"]]
    write_linear(place / "fitted.onnx", (1, 28, 28), np.linalg.lstsq(images, labels)[0])
    write_linear(place / "colors.onnx", (3, 8, 8), rng.normal(size=(192, 10)))
    pixels = rng.integers(0, 256, (2, 3, 8, 8), np.uint8)
    np.savez(place / "cifar.npz", images=pixels, labels=np.array([1, 7]))
    write_linear(place / "yield.onnx", (2,), rng.normal(size=(2, 1)))
    write_network(place / "a.onnx")
    write_network(place / "b.onnx", shift=0.5)
    (place / "two_networks.vnnlib").write_text(TWO)
    write_network(place / "acasxu" / "net.onnx")
    for name, threshold in (("low", 0.5), ("high", 2.0)):
        write_property(place / "acasxu" / f"{name}.vnnlib", threshold)
    rows = "".join(f"net.onnx,{name}.vnnlib,20\n" for name in ("low", "high"))
    (place / "acasxu" / "instances.csv").write_text(rows)
    return place


@pytest.mark.parametrize("document", [name for name in sessions() if name not in ELSEWHERE])
def test_snippets_run_in_a_fresh_interpreter(document: str, folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "here"
    shutil.copytree(folder, own)
    code = "\n".join((GIVEN.get(document, ""), sessions()[document], AFTER.get(document, "")))
    for needed in ("torch", "pandas", "matplotlib"):
        if needed in code or needed in NEEDED.get(document, ""):
            pytest.importorskip(needed)
    done = subprocess.run([sys.executable, "-c", code], cwd=own, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    if document in PRINTED:
        assert [line.split()[0] for line in done.stdout.splitlines()] == PRINTED[document]


def test_what_is_given_belongs_to_a_document() -> None:
    assert {*GIVEN, *AFTER, *ELSEWHERE} <= set(sessions())
