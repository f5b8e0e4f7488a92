"""Linear operators of a network: one small class each, for numpy and torch arrays alike.

Every operator maps `(B, *in_shape)` to `(B, *out_shape)` without a bias and knows its transpose. `terms` bounds the
number of products added up in one entry of any of its results; the rounding analysis of presolve rests on it. No
operator uses a fast-convolution algorithm in float64, so that the classical summation bounds apply [Higham 2002, 3.1].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from mipverify.network.arrays import array_namespace, is_torch_array

Array = Any  # a numpy array or a torch tensor: the engine is generic over both


def parameter_like(parameter: Array, like: Array) -> Array:
    """`parameter` in the namespace, dtype and device of `like`; torch parameters stay attached to their graph."""
    if is_torch_array(like):
        import torch

        if not is_torch_array(parameter):
            parameter = torch.from_numpy(np.ascontiguousarray(parameter))
        return parameter.to(dtype=like.dtype, device=like.device)
    if is_torch_array(parameter):
        parameter = parameter.detach().cpu().numpy()
    return parameter.astype(like.dtype, copy=False)


def product(x: Array, weight: Array) -> Array:
    """`x @ weight`, as `numpy.matmul` has it.

    Numpy does not get to warn of invalid values in float32: kernels of OpenBLAS for AVX-512 also multiply lanes that
    they have not loaded, and then an "invalid value" is whatever was in them. The product itself is right.
    """
    if x.dtype == np.float32:
        with np.errstate(invalid="ignore"):
            return x @ weight
    return x @ weight


class Operator(ABC):
    """A linear map from tensors of `in_shape` to tensors of `out_shape`."""

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    terms: int = 1

    @property
    def in_size(self) -> int:
        return math.prod(self.in_shape)

    @property
    def out_size(self) -> int:
        return math.prod(self.out_shape)

    @property
    def work(self) -> int:
        """Multiplications, or numbers moved, for one row: what the time of a pass is estimated by."""
        return max(self.in_size, self.out_size)

    @abstractmethod
    def apply(self, x: Array) -> Array:
        """W x for x of shape (B, *in_shape) -> (B, *out_shape)."""

    @abstractmethod
    def apply_abs(self, x: Array) -> Array:
        """|W| x, the entrywise absolute value of the map, for x of shape (B, *in_shape) -> (B, *out_shape)."""

    @abstractmethod
    def adjoint(self, a: Array) -> Array:
        """a W, the transposed map, for rows a of shape (R, *out_shape) -> (R, *in_shape)."""

    def rows(self, units: np.ndarray, like: Array) -> Array:
        """The rows of W of the flat output `units` (R,), in the dtype of `like` -> (R, *in_shape)."""
        xp = array_namespace(like)
        one_hot = np.zeros((len(units), self.out_size), dtype=np.float32)
        one_hot[np.arange(len(units)), units] = 1.0
        return self.adjoint(xp.reshape(parameter_like(one_hot, like), (len(units), *self.out_shape)))

    def to_sparse(self) -> Any:
        """The matrix of the map, `scipy.sparse.csr_array` of shape (out_size, in_size) in float64."""
        import scipy.sparse

        chunks = [
            scipy.sparse.csr_array(self.rows(units, np.zeros(0)).reshape(len(units), -1))
            for units in np.array_split(np.arange(self.out_size), max(1, self.out_size // 1024))
            if len(units)
        ]
        return scipy.sparse.csr_array(scipy.sparse.vstack(chunks, format="csr"))

    def parameters(self) -> list[Array]:
        """The weight arrays that the operator holds."""
        return []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.in_shape)} -> {list(self.out_shape)})"


class _Weighted(Operator):
    """An operator with one weight array, cast once for each numpy dtype it is used in."""

    def __init__(self, weight: Array):
        self.weight = weight
        self._casts: dict[tuple[Any, bool], np.ndarray] = {}

    def weight_as(self, like: Array, absolute: bool = False) -> Array:
        """The weights, or their absolute values, in the library and dtype of `like`."""
        if is_torch_array(self.weight) or is_torch_array(like):
            weight = parameter_like(self.weight, like)
            return abs(weight) if absolute else weight
        key = (like.dtype, absolute)
        if key not in self._casts:
            weight = self.weight.astype(like.dtype, copy=False)
            self._casts[key] = np.abs(weight) if absolute else weight
        return self._casts[key]

    def parameters(self) -> list[Array]:
        return [self.weight]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_casts": {}}


class Identity(Operator):
    """The identity; its input may be viewed in another shape of the same size."""

    def __init__(self, shape: tuple[int, ...]):
        self.in_shape = self.out_shape = tuple(shape)

    def apply(self, x: Array) -> Array:
        return x

    def apply_abs(self, x: Array) -> Array:
        return x

    def adjoint(self, a: Array) -> Array:
        return a

    def rows(self, units: np.ndarray, like: Array) -> Array:
        one_hot = np.zeros((len(units), self.out_size))
        one_hot[np.arange(len(units)), units] = 1.0
        return parameter_like(one_hot.reshape(len(units), *self.in_shape), like)

    def to_sparse(self) -> Any:
        import scipy.sparse

        return scipy.sparse.eye_array(self.in_size, format="csr")


class Dense(_Weighted):
    """`weight` (out, in) applied to the last axis; leading axes, if any, are carried along."""

    def __init__(self, weight: Array, lead: tuple[int, ...] = ()):
        super().__init__(weight)
        self.in_shape, self.out_shape = (*lead, weight.shape[1]), (*lead, weight.shape[0])
        self.terms = max(weight.shape)

    def apply(self, x: Array) -> Array:
        return product(x, self.weight_as(x).T)

    @property
    def work(self) -> int:
        return self.out_size * self.in_shape[-1]

    def apply_abs(self, x: Array) -> Array:
        return product(x, self.weight_as(x, absolute=True).T)

    def adjoint(self, a: Array) -> Array:
        return product(a, self.weight_as(a))

    def rows(self, units: np.ndarray, like: Array) -> Array:
        if len(self.in_shape) > 1:
            return super().rows(units, like)
        return self.weight_as(like)[units]

    def to_sparse(self) -> Any:
        import scipy.sparse

        lead = scipy.sparse.eye_array(math.prod(self.in_shape[:-1]))
        return scipy.sparse.csr_array(scipy.sparse.kron(lead, self.weight_as(np.zeros(0)), format="csr"))


class Scale(_Weighted):
    """Entrywise product with `factor`, which has (or broadcasts to) the shape of the tensor.

    roundings: how many float64 roundings made it differ from the number that it stands for.
    """

    roundings = 0

    def __init__(self, factor: Array, shape: tuple[int, ...]):
        if not is_torch_array(factor):
            factor = np.broadcast_to(factor, shape)
        super().__init__(factor)
        self.in_shape = self.out_shape = tuple(shape)

    def apply(self, x: Array) -> Array:
        return x * self.weight_as(x)

    def apply_abs(self, x: Array) -> Array:
        return x * self.weight_as(x, absolute=True)

    def adjoint(self, a: Array) -> Array:
        return a * self.weight_as(a)

    def to_sparse(self) -> Any:
        import scipy.sparse

        factor = np.broadcast_to(np.asarray(self.weight_as(np.zeros(0))), self.in_shape)
        return scipy.sparse.csr_array(scipy.sparse.diags_array(factor.reshape(-1), format="csr"))


class Index(Operator):
    """Moves data: flat output i is flat input `indices[i]`, or zero where that is -1 (slices, transposes, pads)."""

    def __init__(self, indices: np.ndarray, in_shape: tuple[int, ...], out_shape: tuple[int, ...]):
        self.indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        used = self.indices[self.indices >= 0]
        self.terms = int(np.bincount(used).max()) if len(used) else 1
        self._kept = np.flatnonzero(self.indices >= 0)
        self._run = _runs(self._kept, self.indices[self._kept])
        self._adjoint: Any = None  # the transposed matrix, where entries are repeated; made on first use

    def apply(self, x: Array) -> Array:
        xp = array_namespace(x)
        flat = xp.reshape(x, (x.shape[0], self.in_size))
        if self._run is not None and not is_torch_array(x):
            to, source = self._run
            if to == slice(0, self.out_size):
                return flat[:, source].reshape(x.shape[0], *self.out_shape)
            out = np.zeros((x.shape[0], self.out_size), x.dtype)
            out[:, to] = flat[:, source]
            return out.reshape(x.shape[0], *self.out_shape)
        if len(self._kept) < len(self.indices):
            flat = xp.concat([flat, xp.zeros_like(flat[:, :1])], axis=1)  # index -1 is the appended zero
        return xp.reshape(flat[:, self.indices], (x.shape[0], *self.out_shape))

    apply_abs = apply

    def adjoint(self, a: Array) -> Array:
        flat = a.reshape(a.shape[0], self.out_size)
        if is_torch_array(a):
            import torch

            target = torch.from_numpy(self.indices[self._kept]).to(a.device)
            out = flat.new_zeros((a.shape[0], self.in_size)).index_add(1, target, flat[:, self._kept])
        elif self._run is not None and self._run[1] == slice(0, self.in_size):
            out = flat[:, self._run[0]]
        elif self.terms == 1:
            out = np.zeros((a.shape[0], self.in_size), a.dtype)
            out[:, self.indices[self._kept]] = flat[:, self._kept]
        else:
            if self._adjoint is None:
                self._adjoint = self.to_sparse().T.tocsr()
            out = np.ascontiguousarray((self._adjoint.astype(a.dtype, copy=False) @ flat.T).T)
        return out.reshape(a.shape[0], *self.in_shape)

    def to_sparse(self) -> Any:
        import scipy.sparse

        ones = np.ones(len(self._kept))
        entries = (ones, (self._kept, self.indices[self._kept]))
        return scipy.sparse.csr_array(entries, shape=(self.out_size, self.in_size))


class Sparse(Operator):
    """Any linear map given as a sparse `matrix` (out_size, in_size): averages with ragged windows and the like."""

    def __init__(self, matrix: Any, in_shape: tuple[int, ...], out_shape: tuple[int, ...]):
        import scipy.sparse

        self.matrix = scipy.sparse.csr_array(matrix, dtype=np.float64)
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        per_row = np.diff(self.matrix.indptr)
        per_column = np.bincount(self.matrix.indices, minlength=1)
        self.terms = int(max(per_row.max(initial=1), per_column.max(initial=1)))
        self._variants: dict[tuple[str, Any], Any] = {}

    @property
    def work(self) -> int:
        return max(self.matrix.nnz, self.in_size, self.out_size)

    def _variant(self, kind: str, like: Array) -> Any:
        """The matrix, its absolute value or its transpose for the library and dtype of `like`, made on first use."""
        key = (kind, (like.dtype, like.device) if is_torch_array(like) else like.dtype)
        if key not in self._variants:
            matrix = {"plain": self.matrix, "abs": abs(self.matrix), "transposed": self.matrix.T}[kind]
            self._variants[key] = (
                _torch_sparse(matrix, like) if is_torch_array(like) else matrix.tocsr().astype(like.dtype)
            )
        return self._variants[key]

    def _times(self, kind: str, x: Array, shape: tuple[int, ...]) -> Array:
        y = self._variant(kind, x) @ x.reshape(x.shape[0], math.prod(x.shape[1:])).T
        y = y.T if is_torch_array(y) else np.ascontiguousarray(y.T)
        return y.reshape(x.shape[0], *shape)

    def apply(self, x: Array) -> Array:
        return self._times("plain", x, self.out_shape)

    def apply_abs(self, x: Array) -> Array:
        return self._times("abs", x, self.out_shape)

    def adjoint(self, a: Array) -> Array:
        return self._times("transposed", a, self.in_shape)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_variants": {}}

    def rows(self, units: np.ndarray, like: Array) -> Array:
        rows = self.matrix[units].toarray()
        return parameter_like(rows.reshape(len(units), *self.in_shape), like)

    def to_sparse(self) -> Any:
        return self.matrix

    def parameters(self) -> list[Array]:
        return [self.matrix.data]


def _torch_sparse(matrix: Any, like: Array) -> Array:
    """A scipy matrix as a torch one, in the dtype and on the device of `like`."""
    import torch

    entries = matrix.tocoo()
    places = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    values = torch.from_numpy(entries.data).to(like.dtype)
    return torch.sparse_coo_tensor(places, values, matrix.shape, check_invariants=False).coalesce().to(like.device)


class Transposed(Operator):
    """The transpose of another operator (a ConvTranspose is the transpose of a Conv)."""

    def __init__(self, inner: Operator):
        self.inner = inner
        self.in_shape, self.out_shape, self.terms = inner.out_shape, inner.in_shape, inner.terms

    @property
    def work(self) -> int:
        return self.inner.work

    def to_sparse(self) -> Any:
        return self.inner.to_sparse().T.tocsr()

    def apply(self, x: Array) -> Array:
        return self.inner.adjoint(x)

    def apply_abs(self, x: Array) -> Array:
        return self.inner.adjoint_abs(x)  # type: ignore[attr-defined]  # only convolutions are transposed

    def adjoint(self, a: Array) -> Array:
        return self.inner.apply(a)

    def parameters(self) -> list[Array]:
        return self.inner.parameters()


def _runs(out: np.ndarray, source: np.ndarray) -> tuple[slice, slice] | None:
    """Both as slices, if entries are taken from one run into one other: as views they cost nothing."""
    if not len(out) or not (np.all(np.diff(out) == 1) and np.all(np.diff(source) == 1)):
        return None
    return slice(int(out[0]), int(out[-1]) + 1), slice(int(source[0]), int(source[-1]) + 1)
