"""Runs the original network, not our reading of it: what a witness must convince."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mipverify.errors import InputError
from mipverify.network.compose import ComposedModel, PartsReplay
from mipverify.network.graph import Network
from mipverify.network.model_file import ModelFile
from mipverify.network.parameters import ParameterMap
from mipverify.network.runtime_text import runtime_text

_SILENT = 4  # ONNX Runtime's level for fatal errors alone: what it refuses is told once, as an error of ours


class Replay(Protocol):
    """The original network as a function of flat float32 inputs."""

    def run(self, x: np.ndarray) -> np.ndarray:
        """x (N, n) float32 -> outputs (N, k), flattened."""


class OnnxRuntimeReplay:
    """An ONNX model in ONNX Runtime, on one thread, one input at a time, each exactly of the shape that it declares.

    tensors: names of inner tensors that are returned, too, which keeps ONNX Runtime from merging some operators.
    Raises InputError, here or later, where ONNX Runtime cannot load or run the model.
    """

    def __init__(self, source: str | Path | ModelFile, tensors: Sequence[str] = ()):
        import onnxruntime

        from mipverify.network.model_file import read_model

        onnxruntime.set_default_logger_severity(_SILENT)  # kernels warn through it, whatever their session's level
        file = source if isinstance(source, ModelFile) else read_model(source)[1]
        self._path, content = file.path, _with_outputs(file, tensors) if tensors else file.content
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        self._run_options = onnxruntime.RunOptions()
        self._run_options.log_severity_level = _SILENT
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001  # its errors have no base class of their own
            raise self._refusal("load", error) from None
        given = self._session.get_inputs()
        stored = {value.name for value in self._session.get_overridable_initializers()}
        self._input = next(value for value in given if value.name not in stored)
        self.input_shape = tuple(size if isinstance(size, int) and size > 0 else 1 for size in self._input.shape)
        self._dtype = np.float64 if self._input.type == "tensor(double)" else np.float32

    def run(self, x: np.ndarray) -> np.ndarray:
        """x (N, n) float32 -> outputs (N, k), flattened, in the type that the file gives. Each input runs alone."""
        rows = [self.output(sample).reshape(-1) for sample in np.asarray(x, dtype=np.float32)]
        return np.stack(rows) if rows else np.zeros((0, 0), dtype=self._dtype)

    def output(self, x: np.ndarray) -> np.ndarray:
        """The output, in its own shape, at one input of n entries."""
        return np.asarray(self._run(x, None)[0])

    def tensors(self, x: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        """The inner tensors `names`, each in its own shape, at one input of n entries."""
        return self._run(x, list(names))

    def _run(self, x: np.ndarray, names: list[str] | None) -> list[np.ndarray]:
        given = np.ascontiguousarray(x).astype(self._dtype).reshape(self.input_shape)
        try:
            return list(self._session.run(names, {self._input.name: given}, self._run_options))
        except Exception as error:  # noqa: BLE001
            raise self._refusal("run", error) from None

    def _refusal(self, what: str, error: Exception) -> Exception:
        text = runtime_text(error)
        if "bad_alloc" in text or "Failed to allocate memory" in text:
            return MemoryError(text)
        return InputError(f"{self._path}: ONNX Runtime cannot {what} it: {text}")


def _with_outputs(file: ModelFile, tensors: Sequence[str]) -> bytes:
    """The model with inner tensors as outputs besides its own."""
    from onnx.helper import make_empty_tensor_value_info

    from mipverify.network.model_file import parse
    from mipverify.network.onnx_reader import inlined

    model = inlined(parse(file), file.path)
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(make_empty_tensor_value_info(name) for name in tensors if name not in known)
    return bytes(model.SerializeToString())


class ModuleReplay:
    """A torch module, in evaluation mode and the type of its parameters: the original of a network from no file."""

    def __init__(self, module: Any, input_shape: tuple[int, ...]):
        self._module, self.input_shape = module, tuple(input_shape)

    def run(self, x: np.ndarray) -> np.ndarray:
        """x (N, n) float32 -> outputs (N, k), flattened; one sample at a time, as the question is asked."""
        return self._run(self._module, x)

    def in_float32(self, x: np.ndarray) -> bool:
        """Whether all tensors of real numbers that it computes at x (N, n) are of float32."""
        import torch
        from torch.overrides import TorchFunctionMode

        found: set[Any] = set()

        class Types(TorchFunctionMode):
            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                result = func(*args, **(kwargs or {}))
                for part in result if isinstance(result, (tuple, list)) else (result,):
                    if isinstance(part, torch.Tensor) and part.is_floating_point():
                        found.add(part.dtype)
                return result

        with Types():
            self._run(self._module, x)
        return found <= {torch.float32}

    def in_double(self, x: np.ndarray) -> tuple[Any, np.ndarray] | None:
        """A copy of the module in float64, and the same by it; None if it cannot be copied, or insists on float32."""
        import torch

        try:
            module = deepcopy(self._module).double()
            return module, self._run(module, x, torch.float64)
        except Exception:  # noqa: BLE001  # the module's own code
            return None

    def _run(self, module: Any, x: np.ndarray, dtype: Any = None) -> np.ndarray:
        import torch

        from mipverify.network.torch_trace import evaluating

        parameter = next(iter(module.parameters()), torch.zeros(0))
        given = torch.from_numpy(np.array(x, dtype=np.float32)).to(parameter.device, dtype or parameter.dtype)
        with torch.no_grad(), evaluating(module), torch.autocast(given.device.type, enabled=False):
            rows = [module(sample.reshape(self.input_shape)).reshape(-1) for sample in given]
        if not rows:
            return np.zeros((0, 0), dtype=np.float32)
        result = torch.stack(rows).cpu()
        return (result.float() if result.dtype in (torch.float16, torch.bfloat16) else result).numpy()


def replay_of(network: Network) -> Replay:
    """The original of `network`: its file, else its torch module, else the network itself in float32.

    A network over parameters is replayed on the inputs that they stand for, one of two by both of them.
    """
    if network.parameters is not None:
        return _MappedReplay(network.parameters, replay_of(network.parameters.original))
    if network.pair is not None:
        return _PairReplay([replay_of(part) for part in network.pair])
    if isinstance(network.file, ComposedModel):
        return PartsReplay(network.file)
    if network.file is not None:
        return OnnxRuntimeReplay(network.file)
    if network.module is not None:
        return ModuleReplay(network.module, network.input_shape)
    return _OwnReplay(network)


class _MappedReplay:
    """The original network at the float32 inputs that parameters stand for."""

    def __init__(self, parameters: ParameterMap, original: Replay):
        self._parameters, self._original = parameters, original

    def run(self, x: np.ndarray) -> np.ndarray:
        return self._original.run(self._parameters.inputs(x))


class _PairReplay:
    """Two originals at the same inputs, each by itself: the outputs of the first, and those of the second behind."""

    def __init__(self, originals: Sequence[Replay]):
        self._originals = originals

    def run(self, x: np.ndarray) -> np.ndarray:
        found = [original.run(x) for original in self._originals]
        return np.concatenate([np.asarray(outputs, np.float64) for outputs in found], axis=1)  # of either type, exactly


class _OwnReplay:
    """A network built in memory is its own original."""

    def __init__(self, network: Network):
        self._network = network

    def run(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, dtype=np.float32).reshape(len(x), *self._network.input_shape)
        return np.asarray(self._network.forward(x)).reshape(len(x), math.prod(self._network.output_shape))
