"""A property and the files of the networks that it is about, as one question about one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from mipverify.errors import InputError
from mipverify.specification.declarations import Declarations, Declared, Tensor
from mipverify.specification.specification import Specification

if TYPE_CHECKING:
    from mipverify.network import Network
    from mipverify.network.compose import ComposedModel, Part
    from mipverify.network.model_file import ModelFile


ASSUMED = 100.0  # what stands in for bounds that inputs do not have: a counterexample is looked for within it


def load_query(
    property_file: str | PathLike[str], networks: str | PathLike[str] | Mapping[str, str | PathLike[str]]
) -> tuple[Network, Specification]:
    """The network and the specification of a VNN-LIB property, for `mipverify.verify`.

    networks: the ONNX file, or one by the name of each network that the property declares. Several networks, several
    inputs or outputs and hidden tensors become one network, whose witnesses are replayed on the files one by one. What
    jumps is read where bounds decide it over the whole input set. Of inputs without bounds a part is looked at, and
    nothing that holds there is said to hold (`Specification.assumed`).

    Raises:
        InputError: a file cannot be read, or networks and property do not fit each other.
    """
    from mipverify.specification.cases import UnboundedInputError
    from mipverify.specification.vnnlib import load_vnnlib

    try:
        specification = load_vnnlib(property_file)
    except UnboundedInputError:
        specification = load_vnnlib(property_file, assumed=ASSUMED)
    given = (
        {name: str(path) for name, path in networks.items()} if isinstance(networks, Mapping) else {"": str(networks)}
    )
    declarations = specification.declarations
    if declarations is None:
        if len(given) != 1:
            raise InputError(f"{property_file}: a property of version 1 is about one network, not {len(given)}")
        files = given
    else:
        try:
            files = declarations.files_of(given)
        except InputError as error:
            raise InputError(f"{property_file}: {error}") from None
    try:
        if declarations is None or declarations.plain:
            network = _one(next(iter(files.values())), declarations, specification)
        else:
            network = _several(declarations, files, given, specification)
    except _FitError as error:
        raise InputError(f"{property_file}: {error}") from None
    specification.require_network(network)
    return network, specification


class _FitError(InputError):
    """Networks that are not what a property declares; the message lacks the name of its file."""


def _one(path: str, declarations: Declarations | None, specification: Specification) -> Network:
    """A network of one input and one output."""
    from mipverify.network import load
    from mipverify.network.compose import ComposedModel, Part, Slot
    from mipverify.network.model_file import read_model
    from mipverify.network.onnx_reader import read

    whole = declarations is not None and any(tensor.whole for tensor in declarations.tensors())
    model = read_model(path)[1] if whole else None
    if model is not None and declarations is not None:
        _check_whole_numbers(declarations, model)
    try:
        return load(path if model is None else model)
    except InputError as refusal:
        model = model or read_model(path)[1]
        part = Part("", model, (Slot("X", read(model).input_shape),), (), (Slot("Y", ()),))
        others = (path, *model.others)
        alone = ComposedModel(model.path, model.sha256, model.content, others, (part,), ("Y",))
        return _decided(alone, specification, refusal)


def _several(
    declarations: Declarations, files: Mapping[str, str], given: Mapping[str, str], specification: Specification
) -> Network:
    """Several networks, or one with several inputs, outputs or hidden tensors, as one network.

    files: of every network. given: those that were named, by which the network is known in records.
    """
    from mipverify.network import load
    from mipverify.network.compose import combined_sha256, compose
    from mipverify.network.model_file import read_model

    read: dict[str, ModelFile] = {path: read_model(path)[1] for path in dict.fromkeys(files.values())}
    parts = [_part(network, read[files[network.name]]) for network in declarations.networks]
    for tensor in declarations.tensors():
        if tensor.whole:
            raise _FitError(f"{tensor.name} has type {tensor.element}; beside others only floats and reals are read")
    asked = declarations.asked or (declarations.networks[0].outputs[0].name,)
    digest = combined_sha256([(name, read[path].sha256) for name, path in given.items()])
    composed = replace(compose(parts, asked, declarations.places), sha256=digest)
    try:
        return load(composed)
    except InputError as refusal:
        return _decided(composed, specification, refusal)


def _decided(model: ComposedModel, specification: Specification, refusal: InputError) -> Network:
    """The network that a model is in the input set alone. Raises the refusal of it where it is none there either."""
    from mipverify.engine.decided import decide_choices
    from mipverify.network import load

    if model.parts and sum(s.size for part in model.parts for s in part.inputs) < specification.num_inputs:
        raise refusal
    found = decide_choices(model, specification)
    if found is None:
        raise refusal
    try:
        return load(found)
    except InputError:
        raise refusal from None


def _check_whole_numbers(declarations: Declarations, model: ModelFile) -> None:
    """Raise if the output is declared as whole numbers, and is others or none in the file."""
    from onnx import TensorProto

    from mipverify.network.model_file import parse

    (output,) = declarations.networks[0].outputs
    kind = TensorProto.DataType.Name(parse(model).graph.output[0].type.tensor_type.elem_type).lower()
    if kind != output.element:
        raise _FitError(f"declares its output {output.name} as {output.element}, that of {model.path} is {kind}")


def _part(network: Declared, model: ModelFile) -> Part:
    from mipverify.network.compose import Part, Slot

    def slots(tensors: Sequence[Tensor]) -> tuple[Slot, ...]:
        return tuple(Slot(tensor.name, tensor.shape, tensor.tensor) for tensor in tensors)

    return Part(network.name, model, slots(network.inputs), slots(network.hidden), slots(network.outputs))


def assignment(specification: Specification, network: Network, x: Any, stated: Mapping[int, str]) -> str:
    """A counterexample as VNN-LIB 2 wants it: for every variable its name, type and shape, then a value on each line.

    x: all inputs (n,). stated: by index, the decimals that stand for inputs.
    """
    declarations = specification.declarations
    assert declarations is not None
    values = _values(declarations, network, x)
    lines: list[str] = []
    start = 0
    inputs = {tensor.name for one in declarations.networks for tensor in one.inputs}
    for tensor in declarations.tensors():
        shape = ",".join(map(str, tensor.shape))
        lines.append(f"{tensor.name} {tensor.element or 'real'} [{shape}]")
        if tensor.name in inputs:
            mine = range(start, start + tensor.size)
            places = mine if declarations.places is None else [declarations.places[k] for k in mine]
            lines += [stated.get(k) or repr(float(x[k])) for k in places]
            start += tensor.size
        else:
            kind = int if tensor.whole else float
            lines += [repr(kind(value)) for value in values[tensor.name].reshape(-1)]
    return "\n".join(lines) + "\n"


def _values(declarations: Declarations, network: Network, x: Any) -> dict[str, Any]:
    """Hidden tensors and outputs by variable, of the original files."""
    from mipverify.network.compose import ComposedModel, Parts
    from mipverify.network.replay import replay_of

    if isinstance(network.file, ComposedModel) and not declarations.plain:
        model: ComposedModel = network.file
        return Parts(model.parts, model.places).tensors(x)
    return {declarations.networks[0].outputs[0].name: replay_of(network).run(x.reshape(1, -1))[0]}
