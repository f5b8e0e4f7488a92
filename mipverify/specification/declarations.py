"""What a property of VNN-LIB 2 declares: networks with inputs, hidden tensors and outputs, and how they are related."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from mipverify.errors import InputError


@dataclass(frozen=True)
class Tensor:
    """A tensor as a property file declares it. element: float32, float64, int64, ..., or None for real numbers.

    tensor: the name in the network's file, of hidden tensors.
    """

    name: str
    shape: tuple[int, ...]
    element: str | None
    tensor: str = ""

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers."""
        return self.element is not None and self.element.startswith(("int", "uint"))


@dataclass(frozen=True)
class Declared:
    """A network as a property file declares it. equal_to: a network whose file implements this one, too.

    isomorphic_to: a network of the same structure, perhaps with other weights.
    """

    name: str
    inputs: tuple[Tensor, ...]
    hidden: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    equal_to: str = ""
    isomorphic_to: str = ""


@dataclass(frozen=True)
class Declarations:
    """The networks of a property. asked: the tensors whose elements, in this order, its conditions are about.

    places: for each element of all inputs in order the variable that it is, where some are asserted to be equal.
    """

    networks: tuple[Declared, ...]
    asked: tuple[str, ...]
    places: tuple[int, ...] | None = None

    @property
    def plain(self) -> bool:
        """Whether it is about one network with one input and one output and nothing else."""
        first = self.networks[0]
        single = len(first.inputs) == 1 == len(first.outputs) and not first.hidden
        return len(self.networks) == 1 and single and self.places is None

    def tensors(self) -> Iterator[Tensor]:
        """All variables in the order of an assignment: by network its inputs, hidden tensors and outputs."""
        for network in self.networks:
            yield from (*network.inputs, *network.hidden, *network.outputs)

    def files_of(self, given: dict[str, str]) -> dict[str, str]:
        """The file of each network, of files by the names of networks; a single one may stand under an empty name.

        Raises InputError where one is missing, is given to no network, or is not that of a network it equals.
        """
        own = [network for network in self.networks if not network.equal_to]
        if set(given) == {""}:
            if len(own) != 1:
                names = ", ".join(network.name for network in own)
                raise InputError(f"the property is about {len(own)} networks ({names}): give the file of each by name")
            given = {own[0].name: given[""]}
        if unknown := sorted(given.keys() - {network.name for network in self.networks}):
            raise InputError(f"the property has no network {unknown[0]!r}")
        found: dict[str, str] = {}
        for network in self.networks:
            file = given.get(network.name)
            if network.equal_to:
                equal = found.get(network.equal_to)
                if file is not None and file != equal:
                    raise InputError(f"network {network.name} equals {network.equal_to}, but has a file of its own")
                file = equal
            if file is None:
                raise InputError(f"no file is given for network {network.name}")
            found[network.name] = file
        return found
