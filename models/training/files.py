"""The files of a training run: checkpoints, the network, and the record of what made it; each appears whole or not."""

from __future__ import annotations

import io
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mipverify.models.architectures import build
from mipverify.models.pruning import MaskedReLU
from torch import nn

from mipverify.errors import InputError
from mipverify.network.formats.state_dict import load_weights

CHECKPOINT = "checkpoint.pt"
NETWORK = "network.onnx"
WEIGHTS = "network.pt"
RECORD = "training.json"


@dataclass(frozen=True)
class Trained:
    """A network with what is needed to build it again."""

    module: nn.Module
    architecture: str
    input_shape: tuple[int, ...]
    classes: int


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, finds the old content or the new. Raises InputError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """`torch.save`, atomically."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getvalue())


def read_tensors(path: Path) -> dict[str, Any]:
    """The inverse of `write_tensors`; runs no code from the file. Raises InputError if it is missing or damaged."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # noqa: BLE001 - a damaged file fails in many ways, none of them documented
        raise InputError(f"{path}: cannot be read as a checkpoint ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is not a file of this program")
    return content


def write_record(directory: Path, record: dict[str, Any]) -> None:
    """training.json."""
    write_whole(directory / RECORD, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())


def read_record(directory: Path) -> dict[str, Any]:
    """What `write_record` wrote. Raises InputError if there is none."""
    try:
        record = json.loads((directory / RECORD).read_text())
    except OSError:
        raise InputError(f"{directory}: holds no finished training run ({RECORD} is missing)") from None
    except ValueError:
        raise InputError(f"{directory / RECORD}: is damaged") from None
    if not isinstance(record, dict):
        raise InputError(f"{directory / RECORD}: is damaged")
    return record


def write_network(directory: Path, trained: Trained) -> None:
    """network.onnx, and network.pt with the architecture's name and the weights."""
    content = {
        "architecture": trained.architecture,
        "input_shape": list(trained.input_shape),
        "classes": trained.classes,
        "weights": trained.module.state_dict(),
        "masks": {name: _masks(part) for name, part in trained.module.named_modules() if isinstance(part, MaskedReLU)},
    }
    write_tensors(directory / WEIGHTS, content)
    write_whole(directory / NETWORK, onnx_bytes(trained.module, trained.input_shape))


def read_network(path: str | Path) -> Trained:
    """The network of a run's directory, or of a .pt file that `write_network` wrote. Raises InputError."""
    place = Path(path)
    file = place / WEIGHTS if place.is_dir() else place
    if file.suffix == ".onnx":
        raise InputError(f"{path}: give the directory of the training run, or its {WEIGHTS}; ONNX cannot be trained")
    content = read_tensors(file)
    try:
        shape, classes = tuple(content["input_shape"]), int(content["classes"])
        module = build(content["architecture"], shape, classes, seed=0)
        for name, masks in content["masks"].items():
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, MaskedReLU(masks["kept"], masks["linear"]))
        module.load_state_dict(content["weights"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{file}: is not a network of this program ({error})") from None
    return Trained(module, content["architecture"], shape, classes)


def begun_with(weights: str | Path, architecture: str, shape: tuple[int, ...], classes: int) -> Trained:
    """A network of an architecture with the weights of a state dict in a file. Raises InputError."""
    module = build(architecture, shape, classes, seed=0)
    load_weights(module, weights, architecture)
    return Trained(module.train(), architecture, shape, classes)


def _masks(part: MaskedReLU) -> dict[str, torch.Tensor]:
    """The two masks, in the shape of one sample."""
    masks = {}
    for name, units in (("kept", part.kept), ("linear", part.linear)):
        mask = torch.zeros(len(part.source), dtype=torch.bool)
        mask[units] = True
        masks[name] = mask.reshape(part.shape)
    return masks


def onnx_bytes(module: nn.Module, input_shape: tuple[int, ...]) -> bytes:
    """The module as an ONNX file: input `image` (N, *input_shape), output `logits` (N, classes)."""
    training = module.training
    buffer = io.BytesIO()
    names = {"image": {0: "N"}, "logits": {0: "N"}}
    # The exporter through TorchScript: its successor needs a package more, and makes the same file of these networks.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and the masks of pruned ReLUs are constants of the trace
        module.eval()
        try:
            torch.onnx.export(
                module,
                (torch.zeros(1, *input_shape),),
                buffer,  # type: ignore[arg-type]  # a path, says its type; a file, says its documentation
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes=names,
                opset_version=13,
                dynamo=False,
            )
        finally:
            module.train(training)
    return buffer.getvalue()
