"""State dicts of PyTorch (.pth, .pt), with the architecture as a function in a Python file of the user's."""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Mapping
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from mipverify.errors import InputError
from mipverify.network.model_file import read_bytes

_NESTED = ("state_dict", "model_state_dict")  # where training frameworks put it beside the state of the optimizer
_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_PREFIX = "module."  # of torch.nn.DataParallel


def read_state_dict(path: str | Path, architecture: str) -> Any:
    """The `torch.nn.Module` that `architecture` returns, with the weights in `path`, in evaluation mode.

    `architecture` is `FILE.py:FUNCTION`; the file is executed. The weights are read by `torch.load` with
    `weights_only=True`, which runs no code from the file.

    Raises:
        InputError: torch is not installed, a file cannot be used, or the weights do not fit the module.
    """
    if importlib.util.find_spec("torch") is None:
        raise InputError(f"{path}: reading it needs PyTorch: pip install torch")
    module = made_by(architecture)
    load_weights(module, path, architecture)
    return module.eval()


def load_weights(module: Any, path: str | Path, architecture: str) -> None:
    """Load the state dict in a file into a module; `architecture` is what the module is called in errors.

    Raises InputError where the file holds none, or one that does not fit.
    """
    import torch

    try:
        found = torch.load(io.BytesIO(read_bytes(path)), map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - the reader raises whatever a damaged file makes of its parser
        text = str(error).strip().split("\n")[0]
        if "weights_only" in str(error):
            text = "it holds more than weights: save module.state_dict(), or write the module by torch.onnx.export"
        raise InputError(f"{path}: not a state dict, or a damaged file: {text}") from None
    weights = _weights(path, found)
    try:
        problems = module.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise InputError(f"{path}: does not fit {architecture}: {lines[0] if lines else error}") from None
    for what, names in (("lacks", problems.missing_keys), ("has besides", problems.unexpected_keys)):
        if names:
            raise InputError(f"{path}: does not fit {architecture}: it {what} {', '.join(sorted(names)[:5])}")


def _weights(path: str | Path, found: Any) -> dict[str, Any]:
    import torch

    for key in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"{path}: holds {type(found).__name__}, not a state dict")
    for name, value in found.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{path}: not a state dict: {name!r} is {type(value).__name__}, not a tensor")
    if all(name.startswith(_PREFIX) for name in found):
        found = {name.removeprefix(_PREFIX): value for name, value in found.items()}
    return dict(found)


def made_by(architecture: str, *given: object) -> Any:
    """The module that `FILE.py:FUNCTION` returns, called with as many of the given arguments as it needs.

    Raises InputError where there is no such function, or it fails or returns something else.
    """
    from torch import nn

    file, colon, name = architecture.rpartition(":")
    if not colon or not file or not name:
        raise InputError(f"--architecture must be FILE.py:FUNCTION, not {architecture!r}")
    if not Path(file).is_file():
        raise InputError(f"--architecture {architecture}: there is no file {file}")
    spec = importlib.util.spec_from_file_location("mipverify_architecture", file)
    if spec is None or spec.loader is None:
        raise InputError(f"--architecture {architecture}: {file} is not a Python file")
    loaded = importlib.util.module_from_spec(spec)
    folder = str(Path(file).resolve().parent)
    sys.path.insert(0, folder)  # as `python FILE.py` would: the file may import its neighbours
    sys.modules[spec.name] = loaded  # dataclasses look themselves up there
    try:
        spec.loader.exec_module(loaded)
        make = getattr(loaded, name)
        needed = [p for p in signature(make).parameters.values() if p.default is p.empty and p.kind in _POSITIONAL]
        module = make(*given[: len(needed)])
    except Exception as error:  # noqa: BLE001 - the user's own code
        raise InputError(f"--architecture {architecture}: {type(error).__name__}: {error}") from None
    finally:
        sys.path.remove(folder)
        del sys.modules[spec.name]
    if not isinstance(module, nn.Module):
        raise InputError(f"--architecture {architecture}: returns {type(module).__name__}, not a torch.nn.Module")
    return module
