"""Runs the original network, not our reading of it: what a witness must convince."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mipverify.network.graph import Network
from mipverify.network.parameters import ParameterMap


class Replay(Protocol):
    """The original network as a function of flat float32 inputs."""

    def run(self, x: np.ndarray) -> np.ndarray:
        """x (N, n) float32 -> outputs (N, k), flattened."""


class OnnxRuntimeReplay:
    """An ONNX file in ONNX Runtime, on one thread, whatever its batch size and trailing softmax or argmax."""

    def __init__(self, path: str | Path):
        import onnxruntime

        from mipverify.network.onnx_reader import read_bytes

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # From bytes, a file with external weights would not find them.
        model = read_bytes(path) if Path(path).suffix == ".gz" else str(path)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        given = self._session.get_inputs()
        stored = {value.name for value in self._session.get_overridable_initializers()}
        self._input = next(value for value in given if value.name not in stored)
        sizes = self._input.shape
        self._batched = len(sizes) > 1 and not isinstance(sizes[0], int)
        self.input_shape = tuple(size if isinstance(size, int) and size > 0 else 1 for size in sizes)
        self._dtype = np.float64 if self._input.type == "tensor(double)" else np.float32

    def run(self, x: np.ndarray) -> np.ndarray:
        """x (N, n) float32 -> outputs (N, k), flattened, in the type that the file gives."""
        x = np.ascontiguousarray(x, dtype=np.float32).astype(self._dtype).reshape(len(x), *self.input_shape)
        if self._batched:
            outputs = self._evaluate(x.reshape(-1, *self.input_shape[1:]))
            # A file may carry a reshape to one sample in spite of its symbolic batch size.
            if outputs is not None and outputs.ndim and outputs.shape[0] == len(x) > 0:
                return outputs.reshape(len(x), -1)
        rows = []
        for sample in x:
            output = self._evaluate(sample)
            if output is None:
                raise RuntimeError("ONNX Runtime cannot run the network on an input of its declared shape")
            rows.append(output.reshape(-1))
        return np.stack(rows) if rows else np.zeros((0, 0), dtype=self._dtype)

    def _evaluate(self, x: np.ndarray) -> np.ndarray | None:
        """The output, or None where the graph does not take this batch size."""
        import onnxruntime.capi.onnxruntime_pybind11_state as state

        try:
            return np.asarray(self._session.run(None, {self._input.name: x})[0])
        except (state.Fail, state.InvalidArgument, state.RuntimeException):
            return None


class ModuleReplay:
    """A torch module in float32: the original of a network that came from no file."""

    def __init__(self, module: Any, input_shape: tuple[int, ...]):
        self._module, self.input_shape = module, tuple(input_shape)

    def run(self, x: np.ndarray) -> np.ndarray:
        """x (N, n) float32 -> outputs (N, k), flattened; one sample at a time, as the question is asked."""
        import torch

        parameter = next(iter(self._module.parameters()), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        training = self._module.training
        self._module.eval()
        try:
            with torch.no_grad():
                given = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).to(device)
                rows = [self._module(sample.reshape(self.input_shape)).reshape(-1) for sample in given]
            return torch.stack(rows).cpu().numpy() if rows else np.zeros((0, 0), dtype=np.float32)
        finally:
            self._module.train(training)


def replay_of(network: Network) -> Replay:
    """The original of `network`: its file, else its torch module, else the network itself in float32.

    A network over parameters is replayed on the inputs that they stand for.
    """
    if network.parameters is not None:
        return _MappedReplay(network.parameters, replay_of(network.parameters.original))
    if network.path is not None:
        return OnnxRuntimeReplay(network.path)
    if network.module is not None:
        return ModuleReplay(network.module, network.input_shape)
    return _OwnReplay(network)


class _MappedReplay:
    """The original network at the float32 inputs that parameters stand for."""

    def __init__(self, parameters: ParameterMap, original: Replay):
        self._parameters, self._original = parameters, original

    def run(self, x: np.ndarray) -> np.ndarray:
        return self._original.run(self._parameters.inputs(x))


class _OwnReplay:
    """A network built in memory is its own original."""

    def __init__(self, network: Network):
        self._network = network

    def run(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, dtype=np.float32).reshape(len(x), *self._network.input_shape)
        return np.asarray(self._network.forward(x)).reshape(len(x), math.prod(self._network.output_shape))
