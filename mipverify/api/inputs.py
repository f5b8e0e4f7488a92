"""Inputs and labels as people have them: tensors, arrays, data sets and loaders, one input or a batch."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mipverify.errors import InputError
from mipverify.specification.layout import LAYOUTS


def array(value: Any, what: str) -> NDArray[Any]:
    """A tensor of any kind, or anything that numpy understands, as an array. Raises InputError."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.is_meta:
            raise InputError(f"{what}: the tensor has no values: it is on the device meta")
        value = value.detach().cpu()
        if value.is_quantized or value.layout != torch.strided:
            raise InputError(f"{what}: a dense tensor is needed")
        value = (value.float() if value.dtype == torch.bfloat16 else value).resolve_conj().resolve_neg().numpy()
    try:
        found = np.asarray(value)
    except (TypeError, ValueError):
        found = np.asarray(None)
    if found.dtype.kind == "c":
        raise InputError(f"{what}: real numbers are needed, not {found.dtype}")
    if found.dtype.kind not in "iufb":
        raise InputError(f"{what}: numbers are needed, not {type(value).__name__}")
    return found


def is_loader(value: Any) -> bool:
    """Whether this gives pairs of inputs and labels one by one, as data sets and loaders of torch do."""
    if isinstance(value, (list, tuple, np.ndarray, str)) or hasattr(value, "__array__"):
        return False
    return hasattr(value, "__iter__") or (hasattr(value, "__getitem__") and hasattr(value, "__len__"))


def collected(loader: Any, most: int | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """The first `most` inputs (N, *shape) and labels (N,) of a loader of batches, or of a data set of single samples.

    torch's random numbers, which loaders use, are afterwards those that they were before. Raises InputError.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return _collected(loader, most)
    with torch.random.fork_rng(devices=[]):
        return _collected(loader, most)


def _collected(loader: Any, most: int | None) -> tuple[NDArray[Any], NDArray[Any]]:
    inputs: list[NDArray[Any]] = []
    labels: list[NDArray[Any]] = []
    count = 0
    for item in _items(loader):
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            raise InputError(f"the loader gives a {type(item).__name__}: pairs of inputs and labels are needed")
        x, y = array(item[0], "images of the loader"), array(item[1], "labels of the loader")
        if y.ndim == 0:
            x, y = x[None], y[None]
        if y.ndim != 1 or x.ndim < 1 or len(x) != len(y):
            raise InputError(f"the loader gives inputs of shape {x.shape} with labels of shape {y.shape}")
        inputs.append(x)
        labels.append(y)
        count += len(x)
        if most is not None and count >= most:
            break
    if not inputs:
        raise InputError("the loader gives nothing")
    if len({x.shape[1:] for x in inputs}) > 1:
        raise InputError("the loader gives inputs of different shapes")
    return np.concatenate(inputs)[:most], np.concatenate(labels)[:most]


def _items(loader: Any) -> Iterator[Any]:
    # A data set of torch has no end of its own: its length says where it is.
    return iter(loader) if hasattr(loader, "__iter__") else map(loader.__getitem__, range(len(loader)))


def class_numbers(y: Any) -> NDArray[np.int64]:
    """Labels of any integer type as an array of their shape; (B, 1) counts as (B,). Raises InputError."""
    found = array(y, "labels")
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.dtype.kind not in "iu" or found.ndim > 1:
        raise InputError(f"labels of shape {found.shape} and type {found.dtype}: numbers of classes are needed")
    return found.astype(np.int64)


def channels_first(x: NDArray[Any], layout: str | None, batched: bool) -> NDArray[Any]:
    """Images in the order that torch modules take."""
    if layout not in (None, *LAYOUTS):
        raise InputError(f"layout {layout!r} is not one of {', '.join(LAYOUTS)}")
    if layout != "nhwc":
        return x
    if x.ndim != 3 + batched:
        raise InputError(f"layout nhwc: images of shape {x.shape[batched:]} have no height, width and channels")
    return np.ascontiguousarray(np.moveaxis(x, -1, int(batched)))


def normalization(transform: Any) -> tuple[object, object] | None:
    """Mean and std of torchvision's Normalize, which states them; None for any other transform."""
    kind = type(transform)
    if kind.__name__ != "Normalize" or not kind.__module__.startswith("torchvision."):
        return None
    return array(transform.mean, "mean").tolist(), array(transform.std, "std").tolist()


def first(samples: Any) -> int | None:
    """How many samples are asked for, or None for all."""
    if samples is None:
        return None
    try:
        count = operator.index(samples)
    except TypeError:
        count = 0
    if count < 1:
        raise InputError(f"samples must be a whole number from 1, not {samples!r}")
    return count
