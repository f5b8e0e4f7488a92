"""Weight files of other tools -> ONNX, with a check of the written file against the weights as stored."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mipverify.errors import InputError
from mipverify.network.formats.layers import Shape
from mipverify.network.formats.onnx_writer import OnnxWriter
from mipverify.network.formats.program import Program

SAMPLES = 16
TOLERANCE = 1e-4  # of the largest output: float32 sums of a deep network stay well below, a wrong layer well above

TENSORFLOW = "convert it with tf2onnx: python -m tf2onnx.convert"
_ADVICE = {
    ".h5": f"a Keras file: {TENSORFLOW} --keras FILE.h5 --output NET.onnx",
    ".keras": "a Keras file: load it, and write ONNX with model.export('NET.onnx', format='onnx') or tf2onnx",
    ".pb": f"a TensorFlow graph: {TENSORFLOW} --graphdef FILE.pb --inputs x:0 --outputs y:0 --output NET.onnx",
    ".onnx": "an ONNX file already: every command reads it as it is",
}


@dataclass(frozen=True)
class ConvertedLayer:
    """One layer of the written network; `shape` is that of its output for one input, channels first."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Conversion:
    """What was written, and how it compares with the source.

    `rounding`: largest change of a weight by rounding to float32, relative to the largest weight in its array.
    `difference`: largest distance of an output of the written file in ONNX Runtime from that of the source, over
    `samples` random inputs, `largest_output` the largest output there. Where a softmax at the end was dropped, they
    compare the order only, and `difference` is None.
    """

    source: str
    target: str
    format: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    layers: tuple[ConvertedLayer, ...]
    parameters: int
    rounding: float
    samples: int
    difference: float | None
    largest_output: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return asdict(self)


@dataclass(frozen=True)
class _Source:
    """A network that was read: how to write it, and how to evaluate the source itself.

    `evaluate`: x (N, *input_shape), float32 values in float64, channels first -> (N, outputs).
    """

    format: str
    write: Callable[[OnnxWriter], Any]
    evaluate: Callable[[np.ndarray], np.ndarray]
    samples: Callable[[np.random.Generator, int], np.ndarray]
    input_shape: Shape
    order_only: bool = False
    notes: tuple[str, ...] = ()


def convert(
    source: str | Path,
    target: str | Path,
    *,
    layers: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    normalize: str | None = None,
    architecture: str | None = None,
) -> Conversion:
    """Write the network in `source` as the ONNX file `target`, and check what was written.

    Formats, by the name of the file: `.mat` (MIPVerify.jl; `layers` lists how the layers follow one another),
    `.nnet` (`normalize`: none, inputs, outputs or both), `.pth` and `.pt` (`architecture`: FILE.py:FUNCTION). Names
    may end in `.gz`. `input_shape` is the shape of one input, channels first.

    Raises:
        InputError: the source or an option cannot be used, or the written file does not compute what the source
            does; `target` is not left behind then.
    """
    path, place = str(source), Path(target)
    if place.suffix != ".onnx":
        raise InputError(f"{target}: the name of the file to write must end in .onnx")
    given = {"layers": layers, "input-shape": input_shape, "normalize": normalize, "architecture": architecture}
    found = _read(path, given)
    writer = OnnxWriter(found.input_shape)
    try:
        model = found.write(writer)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    unchecked = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        unchecked.write_bytes(model.SerializeToString())
        conversion = _check(found, unchecked, path, str(target), writer)
        unchecked.replace(place)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        unchecked.unlink(missing_ok=True)
    return conversion


def _read(path: str, given: dict[str, Any]) -> _Source:
    kind = Path(path.removesuffix(".gz")).suffix.lower()
    if kind in _ADVICE:
        raise InputError(f"{path}: {_ADVICE[kind]}")
    readers = {".mat": _mat, ".nnet": _nnet, ".pth": _state_dict, ".pt": _state_dict}
    takes = {".mat": ("layers", "input-shape"), ".nnet": ("normalize",)}.get(kind, ("architecture", "input-shape"))
    if kind not in readers:
        raise InputError(f"{path}: not a format that is known: {', '.join(readers)}")
    for option, value in given.items():
        if value is not None and option not in takes:
            raise InputError(f"--{option} does not apply to {kind} files")
    return readers[kind](path, given)


def _mat(path: str, given: dict[str, Any]) -> _Source:
    from mipverify.network.formats.mat_file import read_mat

    shape = given["input-shape"]
    if shape is not None and len(shape) == 3:
        shape = (shape[1], shape[2], shape[0])
    elif shape is not None and len(shape) != 1:
        raise InputError("--input-shape must be CHANNELS,HEIGHT,WIDTH or FEATURES for .mat files")
    return _of_program("mat", read_mat(path, given["layers"], shape))


def _of_program(name: str, program: Program) -> _Source:
    from mipverify.network.formats.layers import channels_first

    def evaluate(x: np.ndarray) -> np.ndarray:
        return program.evaluate(np.moveaxis(x, 1, -1) if x.ndim == 4 else x)

    shape = channels_first(program.given)
    return _Source(name, program.write, evaluate, lambda rng, count: rng.uniform(size=(count, *shape)), shape)


def _nnet(path: str, given: dict[str, Any]) -> _Source:
    from mipverify.network.formats.nnet_file import NORMALIZE, read_nnet

    normalize = given["normalize"] or "none"
    if normalize not in NORMALIZE:
        raise InputError(f"--normalize {normalize}: not one of {', '.join(NORMALIZE)}")
    network = read_nnet(path)
    program = network.program(normalize)
    return _Source(
        "nnet",
        program.write,
        lambda x: network.evaluate(x, normalize),
        lambda rng, count: network.samples(rng, count, normalize),
        program.given,
    )


def _state_dict(path: str, given: dict[str, Any]) -> _Source:
    from mipverify.network.formats.state_dict import read_state_dict

    missing = [name for name in ("architecture", "input-shape") if given[name] is None]
    if missing:
        needed = f"a state dict needs --{' and --'.join(missing)} too"
        raise InputError(f"{path}: {needed}; a whole module is written as ONNX by torch.onnx.export")
    shape = given["input-shape"]
    module = read_state_dict(path, given["architecture"])
    from mipverify.network import Network
    from mipverify.network.formats.export import to_onnx

    try:
        network = Network.from_torch(module, shape)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None

    def evaluate(x: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            return module.double()(torch.from_numpy(x)).reshape(len(x), -1).numpy()

    return _Source(
        "state dict",
        lambda writer: to_onnx(network, writer),
        evaluate,
        lambda rng, count: rng.uniform(size=(count, *shape)),
        shape,
        network.order_only,
        network.notes,
    )


def _check(found: _Source, file: Path, source: str, target: str, writer: OnnxWriter) -> Conversion:
    """Compare the written file with the source, and describe it; raises InputError where they differ."""
    from mipverify.network import load
    from mipverify.network.describe import describe
    from mipverify.network.formats.export import one_sample
    from mipverify.network.replay import OnnxRuntimeReplay

    network = load(file)
    x = found.samples(np.random.default_rng(0), SAMPLES).astype(np.float32)
    written = OnnxRuntimeReplay(file).run(x.reshape(SAMPLES, -1)).astype(np.float64)
    expected = np.asarray(found.evaluate(x.astype(np.float64)))
    largest = float(np.abs(expected).max(initial=0.0))
    difference = None
    if found.order_only:
        # Equal probabilities may be told apart by their logits, not the other way round.
        best = np.take_along_axis(expected, written.argmax(axis=1)[:, None], axis=1)[:, 0]
        agrees = bool((best >= expected.max(axis=1) - TOLERANCE).all())
    else:
        difference = float(np.abs(written - expected).max(initial=0.0))
        agrees = difference <= TOLERANCE * max(largest, 1e-30)  # false for NaN
    if not agrees:
        what = (
            "their order differs" if difference is None else f"they differ by {difference:.3g} (largest {largest:.3g})"
        )
        raise InputError(f"{source}: the outputs of what was written are not those of the source: {what}")
    layers = tuple(
        ConvertedLayer(layer.name, layer.kind, one_sample(layer.shape), layer.parameters)
        for layer in describe(network).layers
    )
    return Conversion(
        source,
        target,
        found.format,
        found.input_shape,
        one_sample(network.output_shape),
        layers,
        writer.parameters,
        writer.rounding,
        SAMPLES,
        difference,
        largest,
        found.notes,
    )
