"""Network -> ONNX: one or two standard operators for each linear operator, in float32, for any batch size."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mipverify.errors import InputError
from mipverify.network.arrays import is_torch_array
from mipverify.network.convolution import Conv
from mipverify.network.formats.onnx_writer import OnnxWriter
from mipverify.network.graph import Affine, Input, Network
from mipverify.network.operators import Array, Dense, Identity, Index, Operator, Scale, Sparse, Transposed

LARGEST = 2**24  # numbers that a sparse map is written with
FEW = 1 / 4  # of the entries that a map reads: if no row has more, it is written as sums, else as a matrix

Shape = tuple[int, ...]


def to_onnx(network: Network, writer: OnnxWriter | None = None) -> Any:
    """The `onnx.ModelProto` of `network`, whose weights are rounded to float32.

    Inputs and outputs have a symbolic batch axis in place of the leading 1 of the network's shapes. What was dropped
    on import (a softmax at the end) is not written. Raises InputError for an operator that has no small counterpart.
    """
    writer = writer or OnnxWriter(one_sample(network.input_shape))
    export = _Export(writer, network)
    for index, node in enumerate(network.nodes):
        if isinstance(node, Input):
            export.set(index, writer.input, writer.input_shape)
        elif isinstance(node, Affine):
            export.affine(index, node)
        else:
            value, shape = export.values[node.source]
            export.set(index, writer.node("Relu", [value], export.name(index, "relu")), shape)
    shape = one_sample(network.output_shape)
    return writer.model(export.shaped(network.output, shape), shape)


class _Export:
    """The values written so far: for each node the name of its tensor and the shape of one sample of it."""

    def __init__(self, writer: OnnxWriter, network: Network):
        self.writer, self.network = writer, network
        self.values: dict[int, tuple[str, Shape]] = {}

    def set(self, index: int, value: str, shape: Shape) -> None:
        self.values[index] = (value, shape)

    def name(self, index: int, kind: str) -> str:
        """A name for what node `index` needs: that of the network, where it has one."""
        names = self.network.names
        return f"{names[index]}/{kind}" if index < len(names) and names[index] else f"{kind}{index}"

    def shaped(self, index: int, shape: Shape) -> str:
        """The value of node `index`, each sample in `shape`."""
        return self._reshape(*self.values[index], shape)

    def _reshape(self, value: str, given: Shape, shape: Shape) -> str:
        if given == shape:
            return value
        target = self.writer.constant([-1, *shape], "shape", np.int64)
        return self.writer.node("Reshape", [value, target], "reshape")

    def affine(self, index: int, node: Affine) -> None:
        """Write the sum of the terms and the bias."""
        shape, bias = one_sample(node.shape), None if node.bias is None else _numpy(node.bias)
        if len(node.terms) == 1:
            operator = node.terms[0].operator
            fused = _fused_bias(operator, bias)
            value = self._reshape(*self._term(index, node.terms[0].source, operator, fused), shape)
            bias = None if fused is not None else bias
        elif node.terms:
            parts = [self._reshape(*self._term(index, t.source, t.operator, None), shape) for t in node.terms]
            value = parts[0]
            for part in parts[1:]:
                value = self.writer.node("Add", [value, part], self.name(index, "sum"))
        else:  # a constant, which still has to follow the batch size: zero times an entry of the input
            flat = self.shaped(0, (math.prod(self.network.input_shape),))
            first = self.writer.node("Gather", [flat, self.writer.constant([0], "first", np.int64)], "entry", axis=1)
            zeros = self.writer.constant(np.zeros(math.prod(shape)), "zeros")
            value = self.writer.node("Mul", [first, zeros], self.name(index, "zero"))
            value = self._reshape(value, (math.prod(shape),), shape)
        if bias is not None:
            array = bias[0] if bias.ndim == len(node.shape) > len(shape) else bias
            stored = self.writer.weight(_once(array), self.name(index, "bias"))
            value = self.writer.node("Add", [value, stored], self.name(index, "shifted"))
        self.set(index, value, shape)

    def _term(self, index: int, source: int, operator: Operator, bias: np.ndarray | None) -> tuple[str, Shape]:
        """The operator at the value of node `source` -> the name of the result, and the shape of one sample of it."""
        writer = self.writer
        given, result = one_sample(operator.in_shape), one_sample(operator.out_shape)
        if isinstance(operator, Identity):
            return self.values[source]
        if isinstance(operator, Scale):
            array = _numpy(operator.weight)
            array = array[0] if array.ndim == len(operator.in_shape) > len(given) else array
            factor = writer.weight(_once(array), self.name(index, "factor"))
            return writer.node("Mul", [self.shaped(source, given), factor], self.name(index, "scaled")), result
        if isinstance(operator, Dense):
            weight = writer.weight(_numpy(operator.weight).T, self.name(index, "weight"))
            if bias is not None:
                inputs = [self.shaped(source, given), weight, writer.weight(bias, self.name(index, "bias"))]
                return writer.node("Gemm", inputs, self.name(index, "dense")), result
            return writer.node("MatMul", [self.shaped(source, given), weight], self.name(index, "dense")), result
        if isinstance(operator, Conv | Transposed):
            return self._convolution(index, source, operator, bias), result
        flat = self.shaped(source, (operator.in_size,))
        if isinstance(operator, Index):
            indices = operator.indices
            if (indices < 0).any():  # they read a zero that is appended
                flat = writer.node("Pad", [flat, writer.constant([0, 0, 0, 1], "pads", np.int64)], "padded")
                indices = np.where(indices < 0, operator.in_size, indices)
            places = writer.constant(indices, "places", np.int64)
            return writer.node("Gather", [flat, places], self.name(index, "moved"), axis=1), (operator.out_size,)
        if isinstance(operator, Sparse):
            most = int(np.diff(operator.matrix.indptr).max(initial=1))
            few = most <= FEW * operator.in_size
            if operator.out_size * (most if few else operator.in_size) <= LARGEST:
                mapped = self._sums(index, flat, operator, most) if few else self._matrix(index, flat, operator)
                return mapped, (operator.out_size,)
        raise InputError(f"{self.name(index, 'node')}: {operator} is too large to be written as an ONNX operator")

    def _matrix(self, index: int, flat: str, operator: Sparse) -> str:
        matrix = self.writer.weight(operator.matrix.toarray().T, self.name(index, "matrix"))
        return self.writer.node("MatMul", [flat, matrix], self.name(index, "mapped"))

    def _sums(self, index: int, flat: str, operator: Sparse, most: int) -> str:
        """A map with at most so many entries in a row: these are collected, weighted and added, as in a maximum of
        pooled values, whose matrix would hold little but zeros."""
        rows, counts = operator.matrix, np.diff(operator.matrix.indptr)
        places = np.zeros((operator.out_size, most), np.int64)
        weights = np.zeros((operator.out_size, most))
        filled = np.arange(most) < counts[:, None]
        places[filled], weights[filled] = rows.indices, rows.data
        stored = self.writer.constant(places.reshape(-1), "places", np.int64)
        value = self.writer.node("Gather", [flat, stored], self.name(index, "collected"), axis=1)
        value = self._reshape(value, (places.size,), places.shape)
        value = self.writer.node(
            "Mul", [value, self.writer.weight(weights, self.name(index, "weights"))], self.name(index, "weighted")
        )
        axis = self.writer.constant([2], "axis", np.int64)
        return self.writer.node("ReduceSum", [value, axis], self.name(index, "added"), keepdims=0)

    def _convolution(self, index: int, source: int, operator: Conv | Transposed, bias: np.ndarray | None) -> str:
        conv = operator if isinstance(operator, Conv) else operator.inner
        assert isinstance(conv, Conv)
        weight = _numpy(conv.weight)
        options: dict[str, Any] = {
            "kernel_shape": weight.shape[2:],
            "strides": conv.strides,
            "pads": conv.pads,
            "dilations": conv.dilations,
            "group": conv.groups,
        }
        inputs = [
            self.shaped(source, one_sample(operator.in_shape)),
            self.writer.weight(weight, self.name(index, "weight")),
        ]
        if isinstance(operator, Conv):
            if bias is not None:
                inputs.append(self.writer.weight(bias, self.name(index, "bias")))
            return self.writer.node("Conv", inputs, self.name(index, "conv"), **options)
        # What the strides of the transposed convolution leave over at the end.
        options["output_padding"] = [
            (padded - dilation * (k - 1) - 1) % stride
            for padded, k, stride, dilation in zip(
                conv.padded_hw, weight.shape[2:], conv.strides, conv.dilations, strict=True
            )
        ]
        return self.writer.node("ConvTranspose", inputs, self.name(index, "conv_transpose"), **options)


def _fused_bias(operator: Operator, bias: np.ndarray | None) -> np.ndarray | None:
    """The bias as a vector, where the ONNX operator takes it itself."""
    if bias is None:
        return None
    if isinstance(operator, Dense) and len(operator.in_shape) == 1:
        return bias.reshape(-1)
    if isinstance(operator, Conv):
        by_channel = bias.reshape(operator.out_shape[1], -1)
        if (by_channel == by_channel[:, :1]).all():
            return by_channel[:, 0]
    return None


def one_sample(shape: Shape) -> Shape:
    """The shape of one sample: without the leading 1 that stands for the batch."""
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape


def _numpy(array: Array) -> np.ndarray:
    return array.detach().cpu().numpy() if is_torch_array(array) else np.asarray(array)


def _once(array: np.ndarray) -> np.ndarray:
    """The array with length 1 along axes where it repeats itself: it broadcasts to the same."""
    return array[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)]
