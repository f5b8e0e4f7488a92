"""The command `inspect`: what a network consists of, and how much of it an input set leaves undecided."""

from __future__ import annotations

import gzip
import json as json_module
import math
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mipverify.cli import options as opt
from mipverify.cli.console import say, stdout_for_results_only, table
from mipverify.cli.exits import DONE
from mipverify.cli.question import QuestionOptions
from mipverify.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from mipverify.network import Network
    from mipverify.network.graph import Node
    from mipverify.specification import Specification


def inspect(
    network: opt.Network,
    property: opt.Property = None,  # noqa: A002 - the name that the help shows
    data: opt.Data = None,
    index: opt.Index = None,
    eps: opt.Eps = None,
    norm: opt.Norm = "linf",
    json: opt.Json = False,
) -> int:
    """Show the layers of a network, its ReLUs, parameters and unsupported operators.

    With a property, or an image and a radius, also how many ReLUs each layer has that bounds leave undecided.

    \b
    Examples:
      mipverify inspect net.onnx
      mipverify inspect net.onnx property.vnnlib
      mipverify inspect net.onnx --data mnist_test.npz --index 7 --eps 0.1 --json
    """
    asked = QuestionOptions(property, data, index, eps, norm, None, None)
    asked.check()
    with stdout_for_results_only() if json else nullcontext():
        from mipverify.network import load, unsupported_operators

        refused = unsupported_operators(network)
        facts: dict[str, Any] = {"path": network, "opset": _opset(network), "unsupported_operators": refused}
        if not refused:
            loaded = load(network)
            facts |= describe(loaded)
            if asked.stated():
                facts["stability"] = stability(loaded, asked.build(loaded).specification)
    say(json_module.dumps(facts, allow_nan=False) if json else _text(facts))
    return DONE


def describe(network: Network) -> dict[str, Any]:
    """Shapes, layers and sizes of a network."""
    layers = [_layer(network, i, node) for i, node in enumerate(network.nodes)]
    return {
        "sha256": network.sha256,
        "input": {"name": network.input_name, "shape": list(network.input_shape)},
        "output": {"shape": list(network.output_shape)},
        "relus": sum(layer["units"] for layer in layers if layer["kind"] == "relu"),
        "parameters": sum(layer["parameters"] for layer in layers),
        "nonzeros": sum(layer["nonzeros"] for layer in layers),
        "notes": list(network.notes),
        "layers": layers,
    }


def _layer(network: Network, index: int, node: Node) -> dict[str, Any]:
    import numpy as np

    from mipverify.network.graph import Affine, sources

    terms = node.terms if isinstance(node, Affine) else ()
    arrays = [array for term in terms for array in term.operator.parameters()]
    if isinstance(node, Affine) and node.bias is not None:
        arrays.append(node.bias)
    return {
        "index": index,
        "name": network.names[index] if index < len(network.names) else "",
        "kind": type(node).__name__.lower(),
        "operators": [type(term.operator).__name__ for term in terms],
        "reads": list(sources(node)),
        "shape": list(node.shape),
        "units": math.prod(node.shape),
        "parameters": sum(int(np.size(array)) for array in arrays),
        "nonzeros": sum(int(np.count_nonzero(array)) for array in arrays),
    }


def stability(network: Network, specification: Specification) -> list[dict[str, Any]]:
    """For each ReLU layer, how many units are proven active, proven inactive or unstable over all input boxes."""
    import numpy as np

    from mipverify.network.graph import Relu
    from mipverify.presolve import crown, interval

    boxes = np.unique([np.stack([case.box.lower, case.box.upper]) for case in specification.cases], axis=0)
    lower, upper = (boxes[:, side].reshape(-1, *network.input_shape) for side in (0, 1))
    relus = [(index, node) for index, node in enumerate(network.nodes) if isinstance(node, Relu)]
    rows: list[dict[str, Any]] = [{"layer": index, "units": math.prod(node.shape)} for index, node in relus]
    for name, method in (("interval", interval), ("crown", crown)):
        bounds = method(network, lower, upper)
        for row, (_, node) in zip(rows, relus, strict=True):
            row[name] = _counts(bounds.lower[node.source].min(axis=0), bounds.upper[node.source].max(axis=0))
    return rows


def _counts(lower: np.ndarray, upper: np.ndarray) -> dict[str, int]:
    unstable = int(((lower < 0) & (upper > 0)).sum())
    inactive = int((upper <= 0).sum())
    return {"active": lower.size - unstable - inactive, "inactive": inactive, "unstable": unstable}


def _opset(path: str) -> int | None:
    """Version of the standard operator set that the file asks for."""
    import onnx

    try:
        raw = Path(path).read_bytes()
        model = onnx.load_model_from_string(gzip.decompress(raw) if path.endswith(".gz") else raw)
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)


def _text(facts: dict[str, Any]) -> str:
    lines = [f"{facts['path']}  opset {facts['opset']}"]
    refused = facts["unsupported_operators"]
    if refused:
        lines += ["", f"{len(refused)} unsupported:", *(f"  {entry}" for entry in refused)]
        return "\n".join(lines)
    lines += [
        f"  input       {facts['input']['name']} {_shape(facts['input']['shape'])}",
        f"  output      {_shape(facts['output']['shape'])}",
        f"  ReLUs       {facts['relus']}",
        f"  parameters  {facts['parameters']}, {facts['nonzeros']} nonzero",
        *(f"  note        {note}" for note in facts["notes"]),
        "",
    ]
    rows = [
        (
            f"{layer['index']} {layer['kind']}",
            _operators(layer),
            _shape(layer["shape"]),
            str(layer["parameters"]),
            str(layer["nonzeros"]),
        )
        for layer in facts["layers"]
    ]
    lines.append(table(("layer", "of", "shape", "parameters", "nonzeros"), rows, left=3))
    if "stability" in facts:
        lines += ["", _stability_table(facts["stability"])]
    return "\n".join(lines)


def _stability_table(stability: list[dict[str, Any]]) -> str:
    names = ("active", "inactive", "unstable")
    header = ("relu layer", "units", *(f"{method} {name}" for method in ("interval", "crown") for name in names))
    rows = [
        (str(r["layer"]), str(r["units"]), *(str(r[m][name]) for m in ("interval", "crown") for name in names))
        for r in stability
    ]
    return table(header, rows)


def _operators(layer: dict[str, Any]) -> str:
    if not layer["operators"]:
        return " ".join(map(str, layer["reads"]))
    return " + ".join(f"{name}({node})" for name, node in zip(layer["operators"], layer["reads"], strict=True))


def _shape(shape: list[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"
