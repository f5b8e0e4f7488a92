"""The command `convert`: weight files of other tools as ONNX."""

from __future__ import annotations

import json as json_module
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

from mipverify.cli import options as opt
from mipverify.cli.console import stdout_for_results_only, table
from mipverify.cli.declare import argument, option
from mipverify.cli.exits import DONE
from mipverify.cli.outputs import check_outputs
from mipverify.cli.streams import say
from mipverify.errors import InputError

if TYPE_CHECKING:
    from mipverify.network.formats import Conversion


def convert(
    source: Annotated[str, argument(metavar="IN", help="A .mat, .nnet, .pth or .pt file.", show_default=False)],
    target: Annotated[str, argument(metavar="OUT.onnx", help="File to write.", show_default=False)],
    layers: Annotated[
        str | None, option(metavar="LIST", help="How the layers of a .mat file follow one another.")
    ] = None,
    input_shape: Annotated[
        str | None, option(metavar="C,H,W", help="Shape of one input, channels first, such as 1,28,28.")
    ] = None,
    normalize: Annotated[
        str | None,
        option(metavar="WHAT", help="Fold an NNet file's normalization in: none, inputs, outputs or both."),
    ] = None,
    architecture: Annotated[
        str | None,
        option(metavar="FILE.py:NAME", help="Function that returns the torch module of a state dict."),
    ] = None,
    json: opt.Json = False,
) -> int:
    """Write the weights of another tool as ONNX, and check the written network against them.

    \b
    Examples:
      mipverify convert n1.mat n1.onnx
      mipverify convert cnn.mat cnn.onnx --input-shape 1,28,28 \\
        --layers "conv1:stride=2,relu conv2:stride=2,relu flatten=chw fc1:relu logits"
      mipverify convert ACASXU_1_1.nnet acas.onnx --normalize both
      mipverify convert model.pth model.onnx --architecture model.py:build --input-shape 1,28,28

    The words of --layers are explained in docs/formats.md.
    """
    shape = _shape(input_shape)
    check_outputs({"OUT.onnx": target}, [source, *_module_file(architecture)])
    with stdout_for_results_only() if json else nullcontext():
        from mipverify.network.formats import convert as write

        done = write(source, target, layers=layers, input_shape=shape, normalize=normalize, architecture=architecture)
    say(json_module.dumps(done.to_json(), allow_nan=False) if json else _text(done))
    return DONE


def _module_file(architecture: str | None) -> tuple[str, ...]:
    return () if architecture is None else (architecture.rpartition(":")[0],)


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = (0,)
    if min(shape) < 1:
        raise InputError(f"--input-shape must be sizes such as 1,28,28 or 784, not {text!r}")
    return shape


def _text(done: Conversion) -> str:
    rows = [
        (f"{i} {layer.kind}", layer.name, _times(layer.shape), str(layer.parameters or ""))
        for i, layer in enumerate(done.layers)
    ]
    lines = [
        f"{done.target}  written from {done.source} ({done.format}): "
        f"{_times(done.input_shape)} -> {_times(done.output_shape)}, {done.parameters} parameters",
        f"  check       {_check(done)}",
    ]
    if done.rounding > 0:
        lines.append(
            f"  rounding    weights rounded to float32, by at most {done.rounding:.1e} of the largest in an array"
        )
    lines += [f"  note        {note}" for note in done.notes]
    return "\n".join([*lines, "", table(("layer", "name", "shape", "parameters"), rows, left=3)])


def _check(done: Conversion) -> str:
    if done.difference is None:
        return f"same class as the source on {done.samples} random inputs"
    return (
        f"outputs differ from the source by at most {done.difference:.2g} on {done.samples} random inputs "
        f"(largest output {done.largest_output:.3g})"
    )


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"
