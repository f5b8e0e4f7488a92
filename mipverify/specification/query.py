"""A property and the files of the networks that it is about, as one question about one network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from mipverify.errors import InputError
from mipverify.specification.declarations import Declarations, Declared, Tensor
from mipverify.specification.specification import Specification

if TYPE_CHECKING:
    from mipverify.network import Network
    from mipverify.network.compose import ComposedModel, Part
    from mipverify.network.model_file import ModelFile


def load_query(
    property_file: str | PathLike[str], networks: str | PathLike[str] | Mapping[str, str | PathLike[str]]
) -> tuple[Network, Specification]:
    """The network and the specification of a VNN-LIB property, for `mipverify.verify`.

    networks: the ONNX file, or one by the name of each network that the property declares. Several networks, several
    inputs or outputs and hidden tensors become one network, whose witnesses are replayed on the files one by one.

    Raises:
        InputError: a file cannot be read, or networks and property do not fit each other.
    """
    from mipverify.network import load
    from mipverify.specification.vnnlib import load_vnnlib

    specification = load_vnnlib(property_file)
    given = (
        {name: str(path) for name, path in networks.items()} if isinstance(networks, Mapping) else {"": str(networks)}
    )
    declarations = specification.declarations
    if declarations is None:
        if len(given) != 1:
            raise InputError(f"{property_file}: a property of version 1 is about one network, not {len(given)}")
        network = load(next(iter(given.values())))
    else:
        try:
            files = declarations.files_of(given)
        except InputError as error:
            raise InputError(f"{property_file}: {error}") from None
        network = load(next(iter(files.values()))) if declarations.plain else _composed(declarations, files)
    specification.require_network(network)
    return network, specification


def _composed(declarations: Declarations, files: Mapping[str, str]) -> Network:
    from mipverify.network import load
    from mipverify.network.compose import compose
    from mipverify.network.model_file import read_model

    read: dict[str, ModelFile] = {path: read_model(path)[1] for path in dict.fromkeys(files.values())}
    parts = [_part(network, read[files[network.name]]) for network in declarations.networks]
    asked = declarations.asked or (declarations.networks[0].outputs[0].name,)
    return load(compose(parts, asked, declarations.places))


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
            lines += [repr(float(value)) for value in values[tensor.name].reshape(-1)]
    return "\n".join(lines) + "\n"


def _values(declarations: Declarations, network: Network, x: Any) -> dict[str, Any]:
    """Hidden tensors and outputs by variable, of the original files."""
    from mipverify.network.compose import ComposedModel, Parts
    from mipverify.network.replay import replay_of

    if isinstance(network.file, ComposedModel):
        model: ComposedModel = network.file
        return Parts(model.parts, model.places).tensors(x)
    return {declarations.networks[0].outputs[0].name: replay_of(network).run(x.reshape(1, -1))[0]}
