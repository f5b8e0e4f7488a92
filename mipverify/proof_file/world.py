"""How nodes of a network, or of one that it was reduced to, are called in a proof file: sites and conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mipverify.network import Network
from mipverify.proof.derivation import ReducedTo
from mipverify.proof_file.file import UnprovableError


@dataclass(frozen=True, eq=False)
class Place:
    """Units of a node are units of the ReLUs of a site, in order or (R,) by `units`; of no site: conditions."""

    site: tuple[str, int] | None
    units: np.ndarray | None = None

    def of(self, units: np.ndarray) -> np.ndarray:
        """The units of the site."""
        return units if self.units is None else self.units[units]


@dataclass(frozen=True, eq=False)
class World:
    """relus: what the units of ReLU nodes are. claims: the same for the nodes that rows may stand for.

    read: by ReLU node of a reduced network, the layers whose units it reads, behind the input: (place, how many).
    """

    relus: Mapping[int, Place]
    claims: Mapping[int, Place]
    read: Mapping[int, tuple[tuple[Place, int], ...]] = field(default_factory=dict)

    def reduced(self, by: ReducedTo) -> World:
        """The names in a network that this one was reduced to."""
        relus, claims = {}, {by.output: self.claims[by.original]}
        read, below = {}, list[tuple[Place, int]]()
        for layer in by.layers:
            outer = self.relus[layer.original]
            relus[layer.relu] = claims[layer.source] = place = Place(outer.site, outer.of(layer.units))
            read[layer.relu] = tuple(below)
            below.append((place, len(layer.units)))
        return World(relus, claims, read)


def world_of(network: Network, margins: Network) -> World:
    """The names in the network whose outputs are margins of conditions.

    Raises UnprovableError where ReLUs belong to no node of a file.
    """
    relus, rounds = {}, 0
    made = 0 if network.parameters is None else len(network.nodes) - len(network.parameters.original.nodes)
    for node in margins.relus:
        if node >= len(network.nodes) or node <= made:  # of margins, or what clips an input that parameters make
            relus[node] = Place(("", rounds))
            rounds += 1
        elif node in network.sites:
            relus[node] = Place(network.sites[node])
        else:
            raise UnprovableError("the network was not read from an ONNX file")
    claims = {margins.relu_source(node): place for node, place in reversed(relus.items())}
    claims[margins.output] = Place(None)
    return World(relus, claims)
