"""Networks: ONNX files or torch modules as a DAG of affine maps and ReLUs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mipverify.network import operators
from mipverify.network.graph import Affine, Input, Network, Node, Relu, Term, sources

if TYPE_CHECKING:
    from mipverify.network.importer import Unsupported
    from mipverify.network.model_file import ModelFile

__all__ = [
    "Affine",
    "Input",
    "Network",
    "Node",
    "Relu",
    "Term",
    "from_torch",
    "load",
    "loaded",
    "operators",
    "sources",
    "unsupported_operators",
]


# The importers need onnx or torch: loaded on the first call, not with this package.


def load(source: str | Path | ModelFile) -> Network:
    """The network in an ONNX file (`.onnx` or `.onnx.gz`), or in what was read of one.

    Raises InputError if it cannot be used.
    """
    from mipverify.network.importer import load as read

    return read(source)


def loaded(network: Network | str | Path) -> Network:
    """The network itself, or that of an ONNX file. Raises InputError as `load` does."""
    return network if isinstance(network, Network) else load(network)


def unsupported_operators(source: str | Path | ModelFile) -> list[Unsupported]:
    """Every node of an ONNX file that `load` would refuse, with its reason; empty if there is none."""
    from mipverify.network.importer import unsupported_operators as find

    return find(source)


def from_torch(module: Any, input_shape: tuple[int, ...]) -> Network:
    """The network of a `torch.nn.Module` for inputs of `input_shape` (no batch axis), sharing its parameters."""
    return Network.from_torch(module, input_shape)
