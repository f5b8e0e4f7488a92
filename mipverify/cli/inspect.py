"""The command `inspect`: what a network consists of, and how much of it an input set leaves undecided."""

from __future__ import annotations

import json as json_module
import math
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mipverify.cli import options as opt
from mipverify.cli.console import stdout_for_results_only, table
from mipverify.cli.exits import DONE
from mipverify.cli.question import QuestionOptions
from mipverify.cli.streams import say
from mipverify.parallel.threads import use_one_thread

if TYPE_CHECKING:
    import numpy as np

    from mipverify.network import Network
    from mipverify.specification import Specification


def inspect(
    network: opt.Network,
    property: opt.Property = None,  # noqa: A002 - the name that the help shows
    data: opt.Data = None,
    index: opt.Index = None,
    eps: opt.Eps = None,
    norm: opt.Norm = "linf",
    domain: opt.Domain = "0,1",
    scale: opt.Scale = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    layout: opt.Layout = None,
    json: opt.Json = False,
) -> int:
    """Show the layers of a network, its ReLUs, parameters and unsupported operators.

    With a property, or an image and a radius, also how many ReLUs of each layer bounds leave undecided.

    \b
    Examples:
      mipverify inspect net.onnx
      mipverify inspect net.onnx property.vnnlib
      mipverify inspect net.onnx --data mnist_test.npz --index 7 --eps 0.1 --json
    """
    use_one_thread()  # before anything loads numpy
    asked = QuestionOptions(property, data, index, eps, norm, None, None, domain, scale, mean, std, layout)
    asked.check()
    with stdout_for_results_only() if json else nullcontext():
        facts = examine(network, asked)
    say(json_module.dumps(facts, allow_nan=False) if json else _text(facts))
    return DONE


def examine(path: str, asked: QuestionOptions) -> dict[str, Any]:
    """The object that `--json` prints."""
    from mipverify.network import load, unsupported_operators
    from mipverify.network.describe import describe
    from mipverify.network.onnx_reader import read
    from mipverify.network.validation import unit_box, validated

    graph = read(path)
    refused = unsupported_operators(graph.file)
    facts = {"path": path, "opset": graph.opset, "unsupported_operators": [asdict(entry) for entry in refused]}
    if refused:
        return facts
    network = load(graph.file)
    validated(network, unit_box(network))
    facts |= {
        "sha256": network.sha256,
        "input": {"name": network.input_name, "shape": list(network.input_shape)},
        "output": {"shape": list(network.output_shape)},
        "notes": list(network.notes),
        **describe(network).to_json(),
    }
    if asked.stated():
        question = asked.build(network)
        facts["property"] = question.about
        if question.preprocessing:
            facts["data"] = question.preprocessing
        facts["stability"] = stability(network, question.specification)
    return facts


def stability(network: Network, specification: Specification) -> list[dict[str, Any]]:
    """For each ReLU layer, how many units are proven active, proven inactive or unstable over all input boxes."""
    import numpy as np

    from mipverify.network.graph import Relu
    from mipverify.presolve import crown, interval

    boxes = np.unique([np.stack([case.box.lower, case.box.upper]) for case in specification.cases], axis=0)
    lower, upper = (boxes[:, side].reshape(-1, *network.input_shape) for side in (0, 1))
    relus = [(index, node) for index, node in enumerate(network.nodes) if isinstance(node, Relu)]
    rows: list[dict[str, Any]] = [{"layer": index, "units": math.prod(node.shape)} for index, node in relus]
    first = interval(network, lower, upper)
    for name, bounds in (("interval", first), ("crown", crown(first))):
        for row, (_, node) in zip(rows, relus, strict=True):
            row[name] = _counts(bounds.lower[node.source].min(axis=0), bounds.upper[node.source].max(axis=0))
    return rows


def _counts(lower: np.ndarray, upper: np.ndarray) -> dict[str, int]:
    unstable = int(((lower < 0) & (upper > 0)).sum())
    inactive = int((upper <= 0).sum())
    return {"active": lower.size - unstable - inactive, "inactive": inactive, "unstable": unstable}


def _text(facts: dict[str, Any]) -> str:
    lines = [f"{facts['path']}  opset {facts['opset']}"]
    refused = facts["unsupported_operators"]
    if refused:
        lines += ["", f"{len(refused)} unsupported:", *(_refusal(entry) for entry in refused)]
        return "\n".join(lines)
    lines += [
        f"  input       {facts['input']['name']} {_shape(facts['input']['shape'])}",
        f"  output      {_shape(facts['output']['shape'])}",
        f"  ReLUs       {facts['relus']}",
        f"  parameters  {facts['parameters']}, {facts['nonzeros']} nonzero",
        *(f"  note        {note}" for note in facts["notes"]),
    ]
    if "data" in facts:
        lines.append(f"  data        {facts['data']}")
    lines.append("")
    rows = [
        (f"{layer['index']} {layer['kind']}", layer["name"], _shape(layer["shape"]), *_sizes(layer))
        for layer in facts["layers"]
    ]
    lines.append(table(("layer", "name", "shape", "parameters", "nonzeros"), rows, left=3))
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


def _sizes(layer: dict[str, Any]) -> list[str]:
    """Parameters and nonzeros of a layer; nothing where there are none."""
    return [str(layer[key] or "") for key in ("parameters", "nonzeros")]


def _refusal(entry: dict[str, Any]) -> str:
    return f"  {entry['operator']} (node {entry['node']!r}, opset {entry['opset']}): {entry['reason']}"


def _shape(shape: list[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"
