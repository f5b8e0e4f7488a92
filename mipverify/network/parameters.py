"""Networks over parameters: inputs that are an affine image of a few numbers, possibly clipped."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy

from mipverify.errors import InputError
from mipverify.network.graph import Affine, Input, Network, Node, Relu, Term
from mipverify.network.operators import Identity, Scale, Sparse


@dataclass(frozen=True, eq=False)
class ParameterMap:
    """x = clip(matrix @ p + offset): the inputs (n,) of the network `original` that parameters p (k,) stand for.

    matrix: sparse (n, k). offset: (n,). clip: smallest and largest value, or None. noise: sparse (n, k), or None; with
    it, x = clip(clip(matrix @ p + offset) + noise @ p). The input that a float32 p stands for is the nearest float32 of
    that x.
    """

    original: Network
    matrix: Any
    offset: np.ndarray
    clip: tuple[float, float] | None = None
    noise: Any = None

    def inputs(self, p: np.ndarray) -> np.ndarray:
        """The float32 inputs (N, n) of parameters (N, k)."""
        p = np.asarray(p, np.float64)
        x = self._clipped((self.matrix @ p.T).T + self.offset)
        if self.noise is not None:
            x = self._clipped(x + (self.noise @ p.T).T)
        return x.astype(np.float32)

    def _clipped(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x if self.clip is None else np.clip(x, *self.clip))

    def network(self) -> Network:
        """The original network as a function of the parameters; clipping takes two ReLUs an input.

        Raises InputError where sizes differ, and for a network that stands for its file within a set of inputs only.
        """
        from mipverify.network.compose import ComposedModel

        original = self.original
        if isinstance(original.file, ComposedModel) and original.file.within is not None:
            raise InputError(f"{original.path}: its choices were decided for one input set: no other one maps to it")
        size, count = self.matrix.shape
        if size != original.input_size or self.offset.shape != (size,):
            raise InputError(f"the parameters give {size} inputs, the network has {original.input_size}")
        nodes: list[Node] = [Input((count,))]
        terms: tuple[Term, ...] = (Term(0, self._operator(self.matrix)),)
        offset = np.asarray(self.offset, np.float64)
        if self.noise is not None:
            if self.clip is not None:
                terms, offset = self._clip(nodes, terms, offset)
            terms = (*terms, Term(0, self._operator(self.noise)))
        if self.clip is not None:
            terms, offset = self._clip(nodes, terms, offset)
        nodes.append(Affine(original.input_shape, terms, offset.reshape(original.input_shape)))
        shift = len(nodes) - 1
        for node in original.nodes[1:]:
            if isinstance(node, Relu):
                nodes.append(Relu(node.shape, node.source + shift))
            elif isinstance(node, Affine):
                terms = tuple(Term(term.source + shift, term.operator) for term in node.terms)
                nodes.append(replace(node, terms=terms))
        return Network(
            tuple(nodes),
            original.output + shift,
            path=original.path,
            sha256=original.sha256,
            input_name="parameters",
            notes=original.notes,
            dropped=original.dropped,
            double=original.double,
            parameters=self,
            sites={node + shift: site for node, site in original.sites.items()},
        )

    def _operator(self, matrix: Any) -> Sparse:
        size, count = matrix.shape
        return Sparse(scipy.sparse.csr_array(matrix), (count,), (size,))

    def _clip(self, nodes: list[Node], terms: tuple[Term, ...], offset: np.ndarray) -> tuple[tuple[Term, ...], Any]:
        """Append the ReLUs that clip a sum of terms: clip(x) = low + relu(x - low) - relu(x - high).

        Limits and offset are biases of nodes of their own: their difference would be rounded, and what is proven of it
        would not be quite of this map.
        """
        assert self.clip is not None
        (low, high), shape, first = self.clip, offset.shape, len(nodes)
        whole = (Term(first, Identity(shape)),)
        nodes += [
            Affine(shape, terms, offset),
            Affine(shape, whole, np.full(shape, -float(low))),
            Affine(shape, whole, np.full(shape, -float(high))),
            Relu(shape, first + 1),
            Relu(shape, first + 2),
        ]
        clipped = (Term(first + 3, Identity(shape)), Term(first + 4, Scale(np.array(-1.0), shape)))
        return clipped, np.full(shape, float(low))


def blur_columns(image: np.ndarray, size: int) -> np.ndarray:
    """The images (pixels, size * size) that single taps of a kernel make of an image (..., height, width).

    Tap (i, j) reads the pixel i - size // 2 rows and j - size // 2 columns away; outside of the image there is 0.
    """
    if not isinstance(size, int | np.integer) or size % 2 == 0 or size < 1:
        raise InputError(f"a blur kernel needs an odd size, not {size!r}")
    if image.ndim < 2:
        raise InputError(f"blurring needs an image of at least two axes, not shape {image.shape}")
    height, width = image.shape[-2:]
    planes = image.reshape(-1, height, width)
    reach = size // 2
    padded = np.pad(planes, ((0, 0), (reach, reach), (reach, reach)))
    columns = [padded[:, i : i + height, j : j + width].reshape(-1) for i in range(size) for j in range(size)]
    return np.stack(columns, axis=1).reshape(math.prod(image.shape), size * size)
