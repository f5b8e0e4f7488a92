"""MATLAB files with one array for each `layer/weight` and `layer/bias`, as MIPVerify.jl reads them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from mipverify.errors import InputError, one_line
from mipverify.network.formats.layer_list import Arrays, dense_layer, parse
from mipverify.network.formats.layers import Dense, Relu, Shape
from mipverify.network.formats.mat5 import read_mat5
from mipverify.network.formats.program import Program, Step
from mipverify.network.model_file import read_bytes

_MOST_ATTEMPTS = 10_000
_HDF5 = b"\x89HDF\r\n\x1a\n"


def read_mat(path: str | Path, layers: str | None, given: Shape | None) -> Program:
    """The network in the MATLAB file `path`.

    Weights of a dense layer are (in, out), filters (height, width, in, out): the layout of TensorFlow and of
    MIPVerify.jl (its src/utils/import_weights.jl). `layers` says how they follow one another (see `layer_list`);
    without it, all layers must be dense, with a ReLU between them, and their order is the one in which sizes fit.
    `given` is the shape of an input, (height, width, channels) or (features,), by default the size that the first
    layer takes.

    Raises:
        InputError: says which file, layer or word of `layers` is wrong.
    """
    arrays = read_arrays(path)
    try:
        steps = parse(layers, arrays) if layers is not None else dense_chain(arrays)
        program = Program(given or _first_shape(steps), steps)
        program.shapes()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return program


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All real arrays of a MATLAB file in float64; fields of structures are named `structure/field`."""
    data = read_bytes(path)
    if data[:8] == _HDF5 or data[512:520] == _HDF5:
        raise InputError(
            f"{path}: is a MATLAB 7.3 (HDF5) file: write version 5 instead, with `save -v7` or scipy.io.savemat"
        )
    try:
        arrays = read_mat5(data)
    except (ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise InputError(f"{path}: not a MATLAB file, or a damaged one: {one_line(error)}") from None
    if not arrays:
        raise InputError(f"{path}: holds no arrays")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"{path}: array {name!r} holds NaN or infinity")
    return arrays


def dense_chain(arrays: Arrays) -> tuple[Step, ...]:
    """All layers, dense, in the one order in which their sizes fit, with a ReLU between any two.

    Where sizes leave a choice, layers whose names differ in their number only stand in its order (fc1 before fc2).
    """
    names = list(dict.fromkeys(name.rpartition("/")[0] for name in arrays if name.rpartition("/")[2] == "weight"))
    if not names:
        raise InputError("holds no array named LAYER/weight")
    layers = [dense_layer(name, arrays) for name in names]
    orders = _orders(layers)
    if not orders:
        sizes = ", ".join(f"{layer.label} {layer.weight.shape[0]}x{layer.weight.shape[1]}" for layer in layers)
        raise InputError(f"the sizes of the layers fit in no order ({sizes}): say with --layers how they follow")
    if len(orders) > 1:
        one, other = (" ".join(layer.label for layer in order) for order in orders)
        raise InputError(f"sizes fit in several orders ({one}, or {other}): say with --layers which one it is")
    steps: list[Step] = []
    for i, layer in enumerate(orders[0]):
        steps += [layer] if i == 0 else [Relu(f"relu{i}"), layer]
    return tuple(steps)


def _orders(layers: list[Dense]) -> list[list[Dense]]:
    """Up to two orders of the layers in which sizes fit."""
    found: list[list[Dense]] = []
    attempts = 0

    def extend(chain: list[Dense], rest: list[Dense]) -> None:
        nonlocal attempts
        attempts += 1
        if attempts > _MOST_ATTEMPTS:
            raise InputError("the order of so many layers of equal size cannot be told: say it with --layers")
        if not rest:
            found.append(chain)
        for layer in rest:
            fits = not chain or chain[-1].weight.shape[1] == layer.weight.shape[0]
            if fits and len(found) < 2 and not any(_before(other.label, layer.label) for other in rest):
                extend([*chain, layer], [other for other in rest if other is not layer])

    extend([], layers)
    return found


def _before(one: str, other: str) -> bool:
    """Whether two names differ in their last number only, and `one` has the smaller."""
    first, second = (re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in (one, other))
    if first is None or second is None or (first[1], first[3]) != (second[1], second[3]):
        return False
    return int(first[2]) < int(second[2])


def _first_shape(steps: tuple[Step, ...]) -> Shape:
    for step in steps:
        if isinstance(step, Dense):
            return (step.weight.shape[0],)
        if not isinstance(step, Relu):
            break
    raise InputError("the shape of an input is needed: --input-shape CHANNELS,HEIGHT,WIDTH, such as 1,28,28")
